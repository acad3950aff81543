"""The record of a training run."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.checks import import_pyplot


class History(Mapping[str, np.ndarray]):
    """What was measured in every epoch: arrays by name, as ``history["val_loss"]``.

    Attributes
    ----------
    best_epoch : int or None
        The place in the arrays of the epoch with the best value of `monitor`.
    monitor : str
        What is compared: "val_loss" or, without a validation set, "loss", if early stopping does
        not say otherwise.
    stopped_by : str
        "epochs", "early stopping", "callback" or "interrupt"; "" while training goes on.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> trainer = fl.Trainer(fl.Linear(2, 1, rng=0), "mse", fl.optim.SGD(lr=0.1))
    >>> history = trainer.fit(np.ones((4, 3, 2)), np.ones((4, 3, 1)), epochs=5, progress=False)
    >>> history.epochs, list(history), bool(history["loss"][4] < history["loss"][0])
    (5, ['loss', 'lr'], True)
    """

    def __init__(self, columns: Mapping[str, Any] | None = None, monitor: str = "loss"):
        self._columns = {
            name: [float(v) for v in values] for name, values in (columns or {}).items()
        }
        self.monitor = monitor
        self.best_epoch: int | None = None
        self.stopped_by = ""

    def append(self, values: Mapping[str, float]) -> None:
        """Add an epoch."""
        for name, value in values.items():
            self._columns.setdefault(name, []).append(float(value))

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return max(map(len, self._columns.values()), default=0)

    def row(self, epoch: int) -> dict[str, float]:
        """The values of one epoch."""
        return {name: values[epoch] for name, values in self._columns.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"{name}: expected one of {list(self._columns)}")
        return np.array(self._columns[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        last = ", ".join(f"{n}={v[-1]:.4g}" for n, v in self._columns.items() if v)
        return f"History({self.epochs} epochs, best_epoch={self.best_epoch}, last: {last})"

    def to_json(self) -> str:
        """Return the history as JSON; numbers that are not finite become text."""
        columns = {
            name: [value if math.isfinite(value) else str(value) for value in values]
            for name, values in self._columns.items()
        }
        return json.dumps({"columns": columns, **self._others()}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "History":
        """Return the history that `to_json` wrote."""
        saved = json.loads(text)
        history = cls(saved.pop("columns"))
        for name in history._others():
            setattr(history, name, saved[name])
        return history

    def _others(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("monitor", "best_epoch", "stopped_by")}

    def plot(self, names: Any = None, ax: Any = None) -> Any:
        """Draw curves over the epochs, those of validation dashed, and a line at the best epoch.

        Parameters
        ----------
        names : list of str, optional
            Without it, the losses.
        ax : matplotlib Axes, optional
            Without it, a new figure.

        Returns
        -------
        ax : matplotlib Axes

        Raises
        ------
        KeyError
            A name is not in the history.
        ImportError
            matplotlib is not installed: ``pip install "fastlstm[plot]"``.
        """
        if names is None:
            names = [name for name in self if name.endswith("loss")]
        names = [names] if isinstance(names, str) else list(names)
        curves = {name: self[name] for name in names}
        pyplot = import_pyplot()
        from matplotlib.ticker import MaxNLocator

        if ax is None:
            ax = pyplot.subplots(layout="constrained")[1]
        for name, values in curves.items():
            style = "--" if name.startswith("val_") else "-"
            ax.plot(range(1, len(values) + 1), values, style, label=name)
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch + 1, color="0.6", linestyle=":", label="best epoch")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        if ax.lines:
            ax.legend(frameon=False)
        return ax
