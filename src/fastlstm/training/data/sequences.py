"""Sequences of one or several lengths, in batches of rows of similar length."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.checks import (
    check_shape,
    read_array,
    read_bools,
    read_integers,
    read_number,
    read_numbers,
)
from fastlstm.draws import ORDER, SPLIT, philox
from fastlstm.training.data.batch import Batch, Order, Share, check_lengths

WINDOW = 32  # batches whose rows are sorted by length together
Ragged = np.ndarray | list[np.ndarray]


class Sequences:
    """The `Source` of arrays (N, T, ...) or lists of (T_k, ...)."""

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
    ):
        self.x = _read("x", x)
        if isinstance(self.x, np.ndarray) and self.x.ndim < 2:
            raise ValueError(f"x: expected shape (N, T, ...), got {self.x.shape}")
        self.size = N = len(self.x)
        if not N:
            raise ValueError("x: expected at least one sequence, got none")
        if isinstance(self.x, list):
            if lengths is not None:
                raise ValueError("lengths: a list of sequences has its own, so expected None")
            own = np.array([len(one) for one in self.x], np.intp)
            features = self.x[0].shape[1:]
            for k, one in enumerate(self.x):
                check_shape(f"x[{k}]", one, len(one), *features)
            self.dtype = np.result_type(*{one.dtype for one in self.x})
        else:
            T = self.x.shape[1]
            own = np.full(N, T)
            if lengths is not None:
                own = read_integers("lengths", lengths)
                check_shape("lengths", own, N)
                check_lengths("lengths", own, T)
        self.lengths = own
        self.y = None if y is None else self._read_targets(y)
        self.mask = None if mask is None else self._read_mask(mask)
        self.sample_weight = None if sample_weight is None else self._read_weight(sample_weight)

    def _read_targets(self, y: Any) -> Ragged:
        if isinstance(y, (list, tuple)) and isinstance(self.x, list):
            arrays = [np.asarray(one) for one in y]
            if len(arrays) == self.size and all(
                one.ndim and len(one) == length
                for one, length in zip(arrays, self.lengths, strict=True)
            ):
                return _read("y", list(y))  # one a step
        array = read_numbers("y", y)
        if not array.ndim or len(array) != self.size:
            raise ValueError(f"y: expected targets of {self.size} sequences, got {array.shape}")
        return array

    def _read_mask(self, mask: Any) -> Ragged:
        if isinstance(self.x, list):
            return self._of_steps("mask", mask)
        array = read_bools("mask", mask)
        check_shape("mask", array, *self.x.shape[:2])
        return array

    def _read_weight(self, weight: Any) -> Ragged:
        float64 = np.dtype(np.float64)
        is_list = isinstance(self.x, list) and isinstance(weight, (list, tuple))
        if is_list and len(weight) and np.ndim(weight[0]):
            arrays = self._of_steps("sample_weight", weight)
            return [one.astype(np.float64) for one in arrays]
        array = read_array("sample_weight", weight, float64)
        of_steps = isinstance(self.x, np.ndarray) and array.ndim > 1
        check_shape("sample_weight", array, *np.shape(self.x)[:2] if of_steps else (self.size,))
        return array

    def _of_steps(self, name: str, value: Any) -> list[np.ndarray]:
        """An array (T_k,) for every sequence of a list."""
        if not isinstance(value, (list, tuple)) or len(value) != self.size:
            raise ValueError(f"{name}: expected a list of {self.size} arrays, as x is")
        read = read_bools if name == "mask" else read_numbers
        arrays = [read(f"{name}[{k}]", one) for k, one in enumerate(value)]
        for k, (one, length) in enumerate(zip(arrays, self.lengths, strict=True)):
            check_shape(f"{name}[{k}]", one, int(length))
        return arrays

    # Reading.

    def take(self, rows: np.ndarray) -> Batch:
        """The batch of these rows."""
        lengths = self.lengths[rows]
        T = int(lengths.max(initial=0))
        if isinstance(self.x, list):
            x = _pad([self.x[row] for row in rows], T, self.dtype)
        else:
            x = self.x[rows, :T]

        def of_rows(given: Ragged | None) -> Any:
            if isinstance(given, list):
                return _pad([given[row] for row in rows], T, given[rows[0]].dtype)
            return None if given is None else given[rows]

        mask = of_rows(self.mask)
        weight = of_rows(self.sample_weight)
        return Batch(
            x,
            of_rows(self.y),
            None if (lengths == T).all() else lengths,
            None if mask is None else mask[:, :T],
            weight if weight is None or weight.ndim < 2 else weight[:, :T],
        )

    def rows(self, batch_size: int, order: Order | None) -> list[np.ndarray]:
        """The rows of every batch of an epoch.

        The order is drawn, then windows of batches are sorted by length, then batches are mixed.
        Without an order, all rows are sorted.
        """
        if order is None:
            rows, window = np.arange(self.size), self.size
        else:
            rng = philox(order.seed, ORDER, order.epoch)
            rows, window = rng.permutation(self.size), WINDOW * batch_size
        batches = []
        for start in range(0, self.size, window):
            part = rows[start : start + window]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[k : k + batch_size] for k in range(0, len(part), batch_size)]
        if order is not None and (self.lengths != self.lengths[0]).any():
            batches = [batches[k] for k in rng.permutation(len(batches))]
        return batches

    def batches(
        self, batch_size: int, order: Order | None, start: int, share: Share | None = None
    ) -> Iterator[Batch]:
        for rows in self.rows(batch_size, order)[start:]:
            if share is None:
                yield self.take(rows)
                continue
            own = share(len(rows))
            if own.start < own.stop:
                yield self.take(rows[own])._replace(first_row=own.start)
            else:
                yield self.take(rows[:1]).part(slice(0, 0))

    def split(self, fraction: float, seed: int) -> tuple["Sequences", "Sequences"]:
        """Draw a fraction of the sequences: the others, and these."""
        count = max(1, round(fraction * self.size))
        if count >= self.size:
            raise ValueError(f"validation: expected fewer than all {self.size} sequences")
        drawn = philox(seed, SPLIT).permutation(self.size)
        return self._of(np.sort(drawn[count:])), self._of(np.sort(drawn[:count]))

    def _of(self, rows: np.ndarray) -> "Sequences":
        def of_rows(given: Any) -> Any:
            if isinstance(given, list):
                return [given[row] for row in rows]
            return None if given is None else given[rows]

        lengths = None if isinstance(self.x, list) else self.lengths[rows]
        kept = {name: of_rows(getattr(self, name)) for name in ("mask", "sample_weight")}
        return Sequences(of_rows(self.x), of_rows(self.y), lengths=lengths, **kept)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in ("x", "y", "lengths", "mask", "sample_weight"):
            value = getattr(self, name)
            if isinstance(value, list):
                yield from ((name, one) for one in value)
            elif value is not None:
                yield name, value


def read_fraction(name: str, value: Any) -> float:
    """Return `value` as a float above 0 and below 1."""
    return read_number(name, value, 0, 1, open_below=True, open_above=True)


def _read(name: str, value: Any) -> Ragged:
    if isinstance(value, (list, tuple)):
        return [read_numbers(f"{name}[{k}]", one) for k, one in enumerate(value)]
    return read_numbers(name, value)


def _pad(arrays: list[np.ndarray], T: int, dtype: np.dtype) -> np.ndarray:
    """Arrays (T_k, ...) as one (B, T, ...) with zeros on the right."""
    padded = np.zeros((len(arrays), T, *arrays[0].shape[1:]), dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded
