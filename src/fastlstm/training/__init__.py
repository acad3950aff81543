"""Training: the Trainer, losses, optimizers and schedules of the learning rate."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlstm.training import losses, optim, schedules
    from fastlstm.training.callbacks import CSVLogger, EarlyStopping
    from fastlstm.training.data.batch import Batch
    from fastlstm.training.data.streams import Streams
    from fastlstm.training.history import History
    from fastlstm.training.run import DivergedError
    from fastlstm.training.trainer import Trainer

__all__ = [
    "Batch",
    "CSVLogger",
    "DivergedError",
    "EarlyStopping",
    "History",
    "Streams",
    "Trainer",
    "losses",
    "optim",
    "schedules",
]
# Each module is imported at its first use, or at that of a name in it.
MODULES = "losses", "optim", "schedules"
PLACES = {
    "Batch": "data.batch",
    "CSVLogger": "callbacks",
    "DivergedError": "run",
    "EarlyStopping": "callbacks",
    "History": "history",
    "Streams": "data.streams",
    "Trainer": "trainer",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PLACES, *MODULES})
