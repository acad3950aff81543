"""Measurements: the builds beside each other (`pytest bench`), and fastlstm beside its peers."""
