"""Optimizers and gradient clipping, with torch.optim's formulas."""

from fastlstm.training.optim.adam import Adam, AdamW
from fastlstm.training.optim.base import Optimizer
from fastlstm.training.optim.clip import clip_grad_norm
from fastlstm.training.optim.rmsprop import RMSprop
from fastlstm.training.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm"]
