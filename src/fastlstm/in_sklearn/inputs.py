"""Sequences in all the forms in which X may come."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from fastlstm.checks import check_shape, read_flag, read_integers

FLOATS = [np.float64, np.float32]  # others are cast to the first


@dataclass(frozen=True)
class Inputs:
    """The sequences of X.

    Attributes
    ----------
    steps : array (N, d)
        The steps of all sequences, one after another, without padding.
    counts : int array (n,)
        The steps of each sequence.
    width : int or None
        T if X was an array of T steps; None if it was a list.
    suffix : str
        Of the names of arguments in errors: "_val" of a validation set.
    """

    steps: np.ndarray
    counts: np.ndarray
    width: int | None
    suffix: str = ""

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each sequence ends in `steps`."""
        return np.cumsum(self.counts)

    @property
    def is_full(self) -> bool:
        """Whether X was an array without padding."""
        return self.width is not None and len(self.steps) == len(self) * self.width

    def by_sequence(self, values: np.ndarray) -> Any:
        """Values of steps (N, ...) as a trainer takes them: (n, T, ...) or a list of (T_k, ...)."""
        if self.is_full:
            return values.reshape(len(self), -1, *values.shape[1:])
        return np.split(values, self.ends[:-1])

    def as_given(self, values: np.ndarray, fill: Any) -> Any:
        """Values of steps (N, ...) in the form of X; an array has `fill` after a row's end."""
        if self.width is None or self.is_full:
            return self.by_sequence(values)
        padded = np.full((len(self), self.width, *values.shape[1:]), fill, values.dtype)
        padded[self.within] = values
        return padded

    @property
    def within(self) -> np.ndarray:
        """The steps of an array that are no padding, bool (n, T)."""
        return _within(self.counts, self.width or 0)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """The steps of some sequences, as indices in `steps`."""
        counts, begins = self.counts[rows], self.ends[rows] - self.counts[rows]
        shifts = np.repeat(begins - (np.cumsum(counts) - counts), counts)
        return np.asarray(np.arange(counts.sum()) + shifts)

    def take(self, rows: np.ndarray) -> "Inputs":
        return Inputs(self.steps[self.places(rows)], self.counts[rows], self.width, self.suffix)


def read_inputs(estimator: Any, X: Any, lengths: Any, *, reset: bool, suffix: str = "") -> Inputs:
    """Read X, which may be (n, T), (n, T, d) or a list of (T_k,) and (T_k, d).

    With `reset` the estimator's `n_features_in_` and `n_channels_in_` are set, otherwise X must
    fit them. `n_features_in_` is T for a table (n, T), as of other estimators of scikit-learn.
    """
    read_flag("channels_first", estimator.channels_first)
    sequences = as_list(X)
    if sequences is not None:
        if lengths is not None:
            raise ValueError(f"lengths{suffix}: a list of sequences has its own, so expected None")
        inputs = _read_list(estimator, sequences, suffix)
        table = False
    else:
        table = _ndim(X) != 3
        inputs = _read_array(estimator, X, lengths, table, reset, suffix)
    channels = inputs.steps.shape[1]
    if reset:
        estimator.n_channels_in_ = channels
        if not table:
            estimator.n_features_in_ = channels
            estimator.__dict__.pop("feature_names_in_", None)
        estimator._fitted_table = table
    elif channels != estimator.n_channels_in_:
        raise ValueError(
            f"X{suffix} has {channels} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_channels_in_} features as input: the channels of each step."
        )
    return inputs


def _within(counts: np.ndarray, T: int) -> np.ndarray:
    return np.asarray(np.arange(T) < counts[:, None])


def as_list(value: Any) -> list[Any] | None:
    """The arrays (T_k, ...) of a list of sequences; None if `value` is an array as a whole."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = list(value)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if all(hasattr(one, "__array__") and np.ndim(one) for one in value):
        return [np.asarray(one) for one in value]
    try:
        np.asarray(value)  # nested lists of one size are an array
    except ValueError:
        return [np.asarray(one) for one in value]
    return None


def _ndim(X: Any) -> int:
    return int(X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim)


def _read_list(estimator: Any, sequences: list[np.ndarray], suffix: str) -> Inputs:
    name, read = f"X{suffix}", list[np.ndarray]()
    for k, one in enumerate(sequences):
        if one.ndim == 1:
            one = one[:, None]
        elif one.ndim == 2 and estimator.channels_first:
            one = one.T
        if one.ndim != 2 or not one.size:
            wanted = "(channels, steps)" if estimator.channels_first else "(steps, channels)"
            raise ValueError(f"{name}[{k}]: expected shape {wanted} or (steps,), got {one.shape}")
        if read and one.shape[1] != read[0].shape[1]:
            raise ValueError(
                f"{name}[{k}]: expected {read[0].shape[1]} channels, as {name}[0], "
                f"got {one.shape[1]}"
            )
        read.append(one)
    steps = check_array(np.concatenate(read), dtype=FLOATS, input_name=name, estimator=estimator)
    return Inputs(steps, np.array([len(one) for one in read]), None, suffix)


def _read_array(
    estimator: Any, X: Any, lengths: Any, table: bool, reset: bool, suffix: str
) -> Inputs:
    name = f"X{suffix}"
    options = {"dtype": FLOATS, "ensure_all_finite": lengths is None}  # padding may hold anything
    if table and (reset or estimator._fitted_table):
        x = _read_table(estimator, X, name, reset, options)[:, :, None]
    elif table:
        x = check_array(X, input_name=name, estimator=estimator, **options)[:, :, None]
    else:
        x = check_array(X, input_name=name, estimator=estimator, allow_nd=True, **options)
        x = x.swapaxes(1, 2) if estimator.channels_first else x
        if not x.size:
            raise ValueError(
                f"{name}: expected at least one step and one channel in a minimum of 1 feature, "
                f"got shape {x.shape}"
            )
    n, T, d = x.shape
    if lengths is None:
        return Inputs(np.ascontiguousarray(x).reshape(-1, d), np.full(n, T), T, suffix)
    counts = read_integers(f"lengths{suffix}", lengths)
    check_shape(f"lengths{suffix}", counts, n)
    if not 1 <= counts.min() <= counts.max() <= T:
        raise ValueError(
            f"lengths{suffix}: expected 1 to {T}, got {counts.min()} to {counts.max()}"
        )
    steps = x[_within(counts, T)]
    steps = check_array(steps, input_name=name, estimator=estimator)
    return Inputs(steps, counts, T, suffix)


def _read_table(
    estimator: Any, X: Any, name: str, reset: bool, options: dict[str, Any]
) -> np.ndarray:
    """A table as every estimator of scikit-learn reads X, under another name in errors."""
    if name == "X":
        return np.asarray(validate_data(estimator, X, reset=reset, **options))
    x: np.ndarray = check_array(X, input_name=name, estimator=estimator, **options)
    if x.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"{name} has {x.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input."
        )
    validate_data(estimator, X, reset=False, skip_check_array=True)  # the columns' names
    return x
