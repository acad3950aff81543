"""Recurrent layers for torch models, on the kernels of this library."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'fastlstm.torch: expected torch to be installed: pip install "fastlstm[torch]"'
    ) from error

from fastlstm.in_torch.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastlstm.in_torch.replace import replace, restore

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "replace", "restore"]
