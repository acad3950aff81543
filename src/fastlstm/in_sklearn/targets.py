"""Targets, and weights: one for each sequence, or one for each step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_sample_weight

from fastlstm.in_sklearn.inputs import Inputs, as_list


@dataclass(frozen=True)
class Targets:
    """The targets, or the weights, of sequences.

    Attributes
    ----------
    values : array (n, ...) or (N, ...)
        One for each sequence, or for each step of all sequences, one after another.
    of_steps : bool
    """

    values: np.ndarray
    of_steps: bool

    def take(self, inputs: Inputs, rows: np.ndarray) -> "Targets":
        """Those of some sequences."""
        return Targets(self.values[inputs.places(rows) if self.of_steps else rows], self.of_steps)

    def by_sequence(self, inputs: Inputs) -> Any:
        """The values as a trainer takes them."""
        return inputs.by_sequence(self.values) if self.of_steps else self.values

    def per_step(self, inputs: Inputs) -> np.ndarray:
        """A value for every step."""
        return self.values if self.of_steps else np.repeat(self.values, inputs.counts, axis=0)


def read_targets(estimator: Any, y: Any, inputs: Inputs) -> Targets:
    """Read y.

    Of an array X of T steps, an array y of T columns, T > 1, has a target for each step. So has a
    list of arrays (T_k, ...). All else has a target for each sequence.
    """
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    ragged = _of_list(y, inputs)
    if ragged is not None:
        return Targets(ragged, True)
    name = f"y{inputs.suffix}"
    array = check_array(
        y, ensure_2d=False, allow_nd=True, dtype=None, ensure_all_finite=False, input_name=name
    )
    check_consistent_length(inputs.counts, array)
    if array.ndim < 2 or array.shape[1] == 1 or array.shape[1] != inputs.width:
        if array.ndim > 2 and array.shape[1] != inputs.width:
            raise ValueError(
                f"{name}: expected a target for each of {inputs.width or 'its own'} steps, "
                f"got shape {array.shape}"
            )
        if array.ndim < 3:
            return Targets(array, False)
    return Targets(_flat(array, inputs), True)


def read_weights(sample_weight: Any, inputs: Inputs, of_steps: bool) -> Targets | None:
    """Read weights: (n,), or if targets are of steps also in the form of these."""
    if sample_weight is None:
        return None
    weights = None
    if of_steps:
        ragged = _of_list(sample_weight, inputs)
        if ragged is not None:
            weights = Targets(ragged.astype(np.float64), True)
        elif inputs.width is not None and np.shape(sample_weight) == (len(inputs), inputs.width):
            weights = Targets(_flat(np.asarray(sample_weight, np.float64), inputs), True)
    if weights is None:
        each = _check_sample_weight(sample_weight, inputs.counts[:, None], dtype=np.float64)
        weights = Targets(each, False)
    if not (np.isfinite(weights.values) & (weights.values >= 0)).all():
        raise ValueError("sample_weight: expected finite numbers of at least 0")
    if not weights.values.any():
        raise ValueError("sample_weight: expected a weight above 0, got only zeros")
    return weights


def _of_list(y: Any, inputs: Inputs) -> np.ndarray | None:
    """The values of steps in a list with an array for each sequence; None if it has none."""
    arrays = as_list(y)
    if arrays is None and inputs.width is None and isinstance(y, (list, tuple)) and np.ndim(y) > 1:
        arrays = list(np.asarray(y))
    if arrays is None:
        return None
    check_consistent_length(inputs.counts, arrays)
    lengths = [len(one) if one.ndim else 0 for one in arrays]
    if lengths != inputs.counts.tolist():
        if len(set(lengths)) == 1:
            return None
        k = next(k for k, (a, b) in enumerate(zip(lengths, inputs.counts, strict=True)) if a != b)
        suffix, count = inputs.suffix, inputs.counts[k]
        raise ValueError(
            f"y{suffix}[{k}]: expected {count} steps, as X{suffix}[{k}], got {lengths[k]}"
        )
    return np.asarray(np.concatenate(arrays))


def _flat(array: np.ndarray, inputs: Inputs) -> np.ndarray:
    """The values (n, T, ...) at steps that are no padding, one after another."""
    if inputs.is_full:
        return array.reshape(-1, *array.shape[2:])
    return np.asarray(array[inputs.within])
