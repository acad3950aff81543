"""fastlstm: the LSTM for NumPy users. Train it and run it on the CPU."""

from fastlstm import engine, interop, onnx
from fastlstm._config import show_config
from fastlstm._version import __version__
from fastlstm.kernels import backend, backends, use_backend
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.gru import GRU, GRUCell
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM, LSTMCell
from fastlstm.layers.rnn import RNN, RNNCell
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Gradients, Module
from fastlstm.threads import get_num_threads, set_num_threads
from fastlstm.training import losses, optim

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "GRUCell",
    "Gradients",
    "LSTMCell",
    "Linear",
    "Module",
    "RNNCell",
    "Sequential",
    "__version__",
    "backend",
    "backends",
    "engine",
    "get_num_threads",
    "interop",
    "losses",
    "onnx",
    "optim",
    "set_num_threads",
    "show_config",
    "use_backend",
]
