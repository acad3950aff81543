"""fastlstm: the LSTM for NumPy users. Train it and run it on the CPU."""

import importlib
from typing import TYPE_CHECKING, Any

from fastlstm import engine, training
from fastlstm._config import show_config
from fastlstm._version import __version__
from fastlstm.kernels import backend, backends, use_backend, warn_if_not_compiled
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.gru import GRU, GRUCell
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM, LSTMCell
from fastlstm.layers.pool import Last, Pool
from fastlstm.layers.rnn import RNN, RNNCell
from fastlstm.layers.sequential import Sequential
from fastlstm.layers.steps.backwards import Backwards
from fastlstm.module import Gradients, Module
from fastlstm.threads import get_num_threads, set_num_threads
from fastlstm.threads.limits import register_when_imported

if TYPE_CHECKING:
    from fastlstm import distributed, inspection, interop, onnx
    from fastlstm.files import save
    from fastlstm.interop.any_file import load
    from fastlstm.interop.arrays import from_arrays
    from fastlstm.layers.activation import Activation
    from fastlstm.layers.embedding import Embedding
    from fastlstm.layers.steps.masking import Masking
    from fastlstm.layers.steps.merge import Merge
    from fastlstm.training import (
        CSVLogger,
        EarlyStopping,
        History,
        Trainer,
        losses,
        optim,
        schedules,
    )

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Backwards",
    "CSVLogger",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "GRUCell",
    "Gradients",
    "History",
    "LSTMCell",
    "Last",
    "Linear",
    "Masking",
    "Merge",
    "Module",
    "Pool",
    "RNNCell",
    "Sequential",
    "Trainer",
    "__version__",
    "backend",
    "backends",
    "distributed",
    "engine",
    "from_arrays",
    "get_num_threads",
    "inspection",
    "interop",
    "load",
    "losses",
    "onnx",
    "optim",
    "save",
    "schedules",
    "set_num_threads",
    "show_config",
    "training",
    "use_backend",
]
# Each is imported at its first use.
WINGS = ("distributed", "inspection", "interop", "onnx")
DOORS = ("dask", "sklearn", "torch")  # they need other packages, so `dir` does not list them
OF_TRAINING = "CSVLogger", "EarlyStopping", "History", "Trainer", "losses", "optim", "schedules"
PLACES = {  # the module of each other name
    **dict.fromkeys(OF_TRAINING, "training"),
    "Activation": "layers.activation",
    "Embedding": "layers.embedding",
    "Masking": "layers.steps.masking",
    "Merge": "layers.steps.merge",
    "from_arrays": "interop.arrays",
    "load": "interop.any_file",
    "save": "files",
}


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
    if name not in WINGS + DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *WINGS, *PLACES})


register_when_imported()
warn_if_not_compiled(stacklevel=2)
