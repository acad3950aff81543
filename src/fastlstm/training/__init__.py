"""Losses, optimizers and schedules of the learning rate."""

from fastlstm.training import losses, optim, schedules

__all__ = ["losses", "optim", "schedules"]
