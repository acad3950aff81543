"""Layers one after another, and how they see a ragged batch."""

from fastlstm.layers.sequential.model import Sequential as Sequential
