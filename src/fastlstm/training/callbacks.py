"""What happens beside training: early stopping, and objects that watch.

A callback is any object with one or several of the methods ``on_fit_begin(run)``,
``on_step_end(run)``, ``on_epoch_end(run)`` and ``on_fit_end(run)``. `run` has the attributes
`trainer`, `model`, `optimizer`, `history`, `epochs`, `epoch` (from 0), `step` (the number of steps
of the trainer so far) and `logs`, the values of the step or epoch by name. A method that returns
True asks to stop.

If several ranks train (``Trainer(..., comm=...)``), callbacks are called on rank 0 alone, and those
with the attribute ``on_every_rank = True`` on all. All ranks stop when one is asked to, and
`optimizer.lr` is that of rank 0; what else a callback changes, it has to change on every rank.
"""

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastlstm.checks import read_number, read_size

METHODS = "on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end"


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a value has not improved for some epochs.

    It remembers nothing, so one object serves any number of fits.

    Parameters
    ----------
    patience : int
        How many epochs in a row without improvement end the training.
    min_delta : float
        What is at most this much better is no improvement.
    monitor : str, optional
        The name of the value; "val_loss" with a validation set and "loss" without.
    mode : "min", "max" or "auto"
        Whether lower or higher is better; "auto" is "max" for an accuracy only.
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str | None = None
    mode: str = "auto"

    def __post_init__(self) -> None:
        read_size("patience", self.patience)
        read_number("min_delta", self.min_delta, 0, math.inf, open_above=True)
        if self.mode not in ("min", "max", "auto"):
            raise ValueError(f'mode: expected "min", "max" or "auto", got {self.mode!r}')


class CSVLogger:
    """A callback that writes the values of every epoch to a file of comma-separated values.

    Parameters
    ----------
    path : str or path
        A training run that continues writes its first epochs again.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path

    def on_fit_begin(self, run: Any) -> None:
        """Write the names, and the epochs before."""
        self._write("w", range(run.history.epochs), run.history)

    def on_epoch_end(self, run: Any) -> None:
        """Write the epoch."""
        epoch = run.history.epochs - 1
        self._write("a", [epoch], run.history)

    def _write(self, mode: str, epochs: Iterable[int], history: Any) -> None:
        with open(self.path, mode, newline="") as file:
            writer = csv.writer(file)
            if mode == "w":
                writer.writerow(["epoch", *history])
            for epoch in epochs:
                writer.writerow([epoch + 1, *history.row(epoch).values()])


def read_callbacks(callbacks: Any) -> list[Any]:
    """The callbacks of a fit, checked."""
    given = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for callback in given:
        if isinstance(callback, EarlyStopping):
            raise TypeError("callbacks: expected early_stopping=EarlyStopping(...) in its place")
        if isinstance(callback, type) or not any(hasattr(callback, name) for name in METHODS):
            raise TypeError(
                f"callbacks: expected objects with {' or '.join(METHODS)}, got {callback!r:.60}"
            )
    return given


def of_rank(rank: int, callbacks: Sequence[Any]) -> list[Any]:
    """Those callbacks that are called on a rank."""
    return [one for one in callbacks if not rank or getattr(one, "on_every_rank", False)]
