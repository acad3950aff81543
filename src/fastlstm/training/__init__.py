"""Losses and optimisers."""

from fastlstm.training import losses, optim

__all__ = ["losses", "optim"]
