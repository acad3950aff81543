"""Losses and optimizers."""

from fastlstm.training import losses, optim

__all__ = ["losses", "optim"]
