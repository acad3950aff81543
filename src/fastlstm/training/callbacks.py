"""What happens beside training: early stopping, and objects that watch.

A callback is any object with one or several of the methods ``on_fit_begin(run)``,
``on_step_end(run)``, ``on_epoch_end(run)`` and ``on_fit_end(run)``. `run` has the attributes
`trainer`, `model`, `optimizer`, `history`, `epochs`, `epoch` (from 0), `step` (the number of steps
of the trainer so far) and `logs`, the values of the step or epoch by name. A method that returns
True asks to stop.

A callback that remembers something beside `run.history` also has ``state_dict()`` and
``load_state_dict(state)``, as optimizers have. Every checkpoint keeps its state: numbers, text,
bools, None, arrays, and lists, tuples and dicts of them, each of which comes back as it was. When a
fit goes on, `run` is as it was saved, `on_fit_begin` is called, which may begin anew, and then
`load_state_dict`. States belong to callbacks by class and order; one without a state in the
checkpoint begins anew, with a warning.

If several ranks train (``Trainer(..., comm=...)``), callbacks are called on rank 0 alone, and those
with the attribute ``on_every_rank = True`` on all. All ranks stop when one is asked to, and
`optimizer.lr` is that of rank 0; what else a callback changes, it has to change on every rank.
A checkpoint has the states of rank 0, and all ranks go on from them.
"""

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import read_number, read_size, warn_user

METHODS = "on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end"
STATE_METHODS = "state_dict", "load_state_dict"
STORED = "numbers, text, bools, None, arrays, or lists, tuples and dicts of them"


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a value has not improved for some epochs.

    It remembers nothing, so one object serves any number of fits: the fit counts the epochs, and a
    checkpoint keeps how many.

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

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> trainer = fl.Trainer(fl.Linear(2, 1, rng=0), "mse", fl.optim.SGD(lr=0.0))  # learns nothing
    >>> x, y, stop = np.ones((4, 3, 2)), np.ones((4, 3, 1)), fl.EarlyStopping(patience=2)
    >>> history = trainer.fit(x, y, epochs=9, early_stopping=stop, progress=False)
    >>> history.epochs, history.stopped_by
    (3, 'early stopping')
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
        has = [name for name in STATE_METHODS if callable(getattr(callback, name, None))]
        if len(has) == 1:
            raise TypeError(
                f"callbacks: expected both of {' and '.join(STATE_METHODS)} or none of them, "
                f"got {callback!r:.60} with {has[0]}"
            )
    return given


def of_rank(rank: int, callbacks: Sequence[Any]) -> list[Any]:
    """Those callbacks that are called on a rank."""
    return [one for one in callbacks if not rank or getattr(one, "on_every_rank", False)]


def with_states(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Those callbacks that have a state, by class and number, as "Plateau[0]"."""
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        kind = type(callback).__qualname__
        if hasattr(callback, "state_dict"):
            named[f"{kind}[{seen[kind]}]"] = callback
            seen[kind] += 1
    return named


def load_states(callbacks: Mapping[str, Any], states: Mapping[str, Any], says: bool) -> None:
    """Give callbacks their states by name; `says` whether to warn of those without a partner."""
    for name in callbacks:
        if name in states:
            callbacks[name].load_state_dict(states[name])
        elif says:
            warn_user(f"checkpoint: it has no state of {name} of the callbacks, which begins anew")
    for name in states:
        if says and name not in callbacks:
            warn_user(f"checkpoint: {name} is not among the callbacks, so its state is dropped")


def pack(value: Any, place: str, arrays: list[np.ndarray]) -> Any:
    """The form of a state as JSON; the bytes of its arrays are appended.

    Parameters
    ----------
    value : object
    place : str
        Where it stands, for errors.
    arrays : list of arrays of uint8

    Raises
    ------
    TypeError
        It would not come back as it is.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        parts = [pack(part, f"{place}[{k}]", arrays) for k, part in enumerate(value)]
        return {kind.__name__: parts}
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise TypeError(f"callbacks: {place}: expected text as names, got {name!r:.60}")
        return {"dict": {name: pack(v, f"{place}[{name!r}]", arrays) for name, v in value.items()}}
    if kind is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "OV":
            arrays.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            form = [len(arrays) - 1, array.dtype.str, list(array.shape)]
            return {"array" if kind is np.ndarray else "scalar": form}
        got = f"an array of {array.dtype}"
    else:
        got = kind.__name__
    raise TypeError(f"callbacks: {place}: expected {STORED}, got {got}")


def unpack(form: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state of a form, with arrays of its own."""
    if not isinstance(form, dict):
        return form
    [(kind, content)] = form.items()
    if kind == "dict":
        return {name: unpack(part, arrays) for name, part in content.items()}
    if kind in ("list", "tuple"):
        parts = [unpack(part, arrays) for part in content]
        return parts if kind == "list" else tuple(parts)
    number, dtype, shape = content
    array = arrays[str(number)].copy().view(dtype).reshape(shape)
    return array if kind == "array" else array[()]
