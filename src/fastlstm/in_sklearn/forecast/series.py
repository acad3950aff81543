"""Series as users give them: arrays, lists of arrays, and frames of pandas with an index.

pandas is not imported: a frame is what has an index, and what follows it is made by its own type.
"""

from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import read_numbers


class Form(NamedTuple):
    """How a series was given, and the labels of the steps that follow it.

    Attributes
    ----------
    is_flat : bool
        Whether it was (T,) and not (T, k).
    made : type, optional
        The type of a frame; None for an array.
    names : Any
        The columns of a frame, or the name of a Series.
    end : index of one label, optional
    step : Any
        What is added to a label for the next one.
    """

    is_flat: bool
    made: Any = None
    names: Any = None
    end: Any = None
    step: Any = None

    def labels(self, count: int) -> Any:
        """The index of the next `count` steps."""
        end, last = self.end, self.end[-1]
        kind, name = type(end), end.name
        if hasattr(end, "step"):  # a RangeIndex
            stop = last + (count + 1) * self.step
            return kind(last + self.step, stop, self.step, name=name)
        values = [last + k * self.step for k in range(1, count + 1)]
        if hasattr(type(end), "inferred_freq"):
            return kind(values, freq=self.step, name=name)
        return kind(values, dtype=end.dtype, name=name)

    def after(self, count: int) -> "Form":
        """The form of the series with the next `count` steps."""
        if self.end is None or not count:
            return self
        return self._replace(end=self.labels(count)[-1:])

    def give(self, values: np.ndarray) -> Any:
        """Return values of the next steps, (n, k), as the series was given."""
        if self.made is None:
            return values[:, 0] if self.is_flat else values
        index = self.labels(len(values))
        if self.is_flat:
            return self.made(values[:, 0], index=index, name=self.names)
        return self.made(values, index=index, columns=self.names)

    def check_next(self, name: str, given: Any) -> None:
        """Raise ValueError if a frame has other labels than those of the next steps."""
        if self.end is None or not has_index(given) or not len(given):
            return
        wanted = self.labels(len(given))
        if not wanted.equals(given.index):
            raise ValueError(
                f"{name}: expected the index to go on with {wanted[0]} to {wanted[-1]}, got "
                f"{given.index[0]} to {given.index[-1]}; or pass {name}.to_numpy()"
            )


def read_series(name: str, value: Any, k: int | None = None) -> tuple[np.ndarray, Form]:
    """Return a series as float64 (T, k), and its form."""
    values = read_steps(name, value, k)
    is_flat = np.ndim(value) == 1
    if not has_index(value):
        return values, Form(is_flat)
    names = value.name if is_flat else value.columns
    step = _step(name, value.index)
    return values, Form(is_flat, type(value), names, value.index[-1:], step)


def read_steps(name: str, value: Any, k: int | None = None) -> np.ndarray:
    """Return numbers of steps, (T,) or (T, k), as a finite float64 array (T, k)."""
    array = read_numbers(name, value.to_numpy() if has_index(value) else value)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name}: expected shape (T,) or (T, k), or a list of such series, got {array.shape}"
        )
    array = array.astype(np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if k is not None and array.shape[1] != k:
        raise ValueError(f"{name}: expected {k} columns, as in fit, got {array.shape[1]}")
    if not array.shape[1]:
        raise ValueError(f"{name}: expected at least one column, got none")
    bad = ~np.isfinite(array)
    if bad.any():
        step = int(bad.any(axis=1).argmax())
        raise ValueError(
            f"{name}: expected finite numbers, got {array[step][bad[step]][0]} at step {step}; "
            "missing values have to be filled in before"
        )
    return array


def check_names(name: str, names: Any, given: Any) -> None:
    """Raise ValueError if a frame has other columns than those of the fit."""
    columns = getattr(given, "columns", None) if has_index(given) else None
    if names is None or columns is None:
        return
    if list(columns) != list(names):
        raise ValueError(f"{name}: expected the columns {list(names)}, got {list(columns)}")


def is_list_of_series(value: Any) -> bool:
    """Whether it is a list with a series in every place, and not one series of numbers."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(value[0]) > 0


def has_index(value: Any) -> bool:
    return hasattr(value, "index") and hasattr(value, "to_numpy") and np.ndim(value) > 0


def _ends(index: Any) -> str:
    return f" from {index[0]} to {index[-1]}" if len(index) else ""


def _step(name: str, index: Any) -> Any:
    """What leads from a label to the next; ValueError if that is not the same everywhere."""
    step = None
    if index.is_monotonic_increasing:
        step = index.step if hasattr(index, "step") else getattr(index, "freq", None)
        if step is None and hasattr(type(index), "inferred_freq") and len(index) > 2:
            try:
                step = type(index)(index, freq="infer").freq
            except ValueError:
                step = None
        if step is None and index.dtype.kind in "iuf" and len(index) > 1:
            steps = np.diff(index.to_numpy())
            if steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-9, atol=0):
                step = steps[0]
    if step is None:
        raise ValueError(
            f"{name}: expected an index that goes up in even steps, to go on with in forecasts, "
            f"got {type(index).__name__} of {len(index)}{_ends(index)}; or pass {name}.to_numpy()"
        )
    return step
