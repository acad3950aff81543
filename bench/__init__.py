"""Measurements: builds beside each other, old and new ones too, and fastlstm beside its peers."""
