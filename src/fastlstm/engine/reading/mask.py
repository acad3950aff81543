"""Which steps of a batch count: lists of sequences, lengths and masks.

A batch with a mask is compacted before it is computed: the kept steps of a row follow one another
from the row's beginning, so that what is left is padding on the right, as `lengths` describes it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import (
    check_shape,
    read_array,
    read_bools,
    read_integers,
    read_numbers,
    read_plain,
)
from fastlstm.engine.reading.state import ready

OUTPUTS = "zero", "repeat"  # what may stand in the output at masked steps


class Axes(NamedTuple):
    """The first axes of an array of steps: (T, B), (B, T) with `batch_first`, or (T,)."""

    has_batch: bool
    batch_first: bool

    def rows(self, array: np.ndarray) -> np.ndarray:
        """The array as [B, T, ...], without a copy."""
        if not self.has_batch:
            return array[None]
        return array if self.batch_first else array.swapaxes(0, 1)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """An array [B, T, ...] with these axes, without a copy."""
        if self.has_batch:
            return rows if self.batch_first else rows.swapaxes(0, 1)
        row: np.ndarray = rows[0]
        return row


class Kept(NamedTuple):
    """The steps that a mask keeps, and their places in the compacted batch."""

    axes: Axes
    mask: np.ndarray  # bool, in the shape of the given x without features
    valid: np.ndarray  # bool, in that of the compacted x: where kept steps are
    repeated: tuple[np.ndarray, ...] = ()  # see `repeating`

    def compact(self, array: np.ndarray) -> np.ndarray:
        """The kept steps of an array in the given form; zeros after a row's end."""
        return self._move(array, self.mask, self.valid)

    def spread(self, array: np.ndarray) -> np.ndarray:
        """An array in the given form of a compacted one; zeros at masked steps."""
        return self._move(array, self.valid, self.mask)

    def _move(self, source: np.ndarray, taken: np.ndarray, filled: np.ndarray) -> np.ndarray:
        target = np.zeros(filled.shape + source.shape[filled.ndim :], source.dtype)
        rows = self.axes.rows
        rows(target)[rows(filled)] = rows(source)[rows(taken)]
        return target

    def repeating(self, lengths: np.ndarray | None, reverse: Sequence[bool]) -> "Kept":
        """The same where a masked step shows the output of the kept step before it.

        `repeated` then has for each direction the step that each step shows, [B, T], which is T if
        there is none.
        """
        mask = self.axes.rows(self.mask)
        T = mask.shape[1]
        steps = np.arange(T)
        after = False if lengths is None else ~within(lengths, T)
        repeated = []
        for is_reverse in reverse:
            if is_reverse:
                shown = np.where(mask, steps, T)
                shown = np.minimum.accumulate(shown[:, ::-1], axis=1)[:, ::-1]
            else:
                shown = np.maximum.accumulate(np.where(mask, steps, -1), axis=1)
            repeated.append(np.where((shown < 0) | after, T, shown))
        return self._replace(repeated=tuple(repeated))

    def repeat(self, y: np.ndarray) -> np.ndarray:
        """Fill the masked steps of `spread`'s result with the outputs that they repeat."""
        for part, shown in self._directions(y):
            ends = np.zeros_like(part[:, :1])
            part[...] = np.concatenate([part, ends], axis=1)[np.arange(len(part))[:, None], shown]
        return y

    def fold(self, dy: np.ndarray) -> np.ndarray:
        """The gradient of `spread`'s result, from that of `repeat`'s."""
        total = np.zeros_like(dy)
        for (part, shown), (sums, _) in zip(
            self._directions(dy), self._directions(total), strict=True
        ):
            inside = shown < part.shape[1]
            np.add.at(sums, (np.nonzero(inside)[0], shown[inside]), part[inside])
        return total

    def _directions(self, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each direction's part of y, [B, T, features], and its `repeated`."""
        parts = np.split(self.axes.rows(y), len(self.repeated), axis=-1)
        return list(zip(parts, self.repeated, strict=True))


class Given(NamedTuple):
    """The form of an x that was a list or came with a mask; results go back in the same form."""

    axes: Axes
    shape: tuple[int, ...]  # of x without features
    sequences: np.ndarray | None = None  # lengths of the sequences, if x was a list of them
    kept: Kept | None = None

    def give_back(self, result: np.ndarray, *, repeat: bool = True) -> Any:
        """A computed array in the form of x; with `repeat` masked steps may show outputs."""
        if self.kept is not None:
            result = self.kept.spread(result)
            if self.kept.repeated and repeat:
                result = self.kept.repeat(result)
        if self.sequences is None:
            return result
        rows = self.axes.rows(result)
        return [rows[row, :length].copy() for row, length in enumerate(self.sequences)]

    def read_gradient(self, dy: Any, features: tuple[int, ...]) -> np.ndarray:
        """A caller's gradient of the output in the form of the computed batch."""
        if self.sequences is not None:
            B = len(self.sequences)
            if not isinstance(dy, (list, tuple)) or len(dy) != B:
                raise ValueError(f"dy: expected a list of {B} arrays, as the output is")
            array = _pad("dy", dy, features, self.axes, self.sequences)[0]
        else:
            array = read_numbers("dy", dy)
            check_shape("dy", array, *self.shape, *features)
        if self.kept is not None:
            array = self.kept.compact(self.kept.fold(array) if self.kept.repeated else array)
        return array


class Batch(NamedTuple):
    """x and what belongs to its steps, compacted."""

    x: np.ndarray  # in the dtype in which it was given
    lengths: np.ndarray | None
    resets: np.ndarray | None
    axes: Axes
    given: Given | None  # None if x was an array without a mask

    @property
    def valid(self) -> np.ndarray | None:
        """Where x has steps and no padding, in its shape without features; None if everywhere."""
        if self.lengths is None:
            return None
        T = self.x.shape[1 if self.axes.batch_first else 0]
        valid = within(self.lengths, T)
        return None if valid.all() else self.axes.of_rows(valid)


def read_batch(
    x: Any,
    lengths: Any,
    resets: Any,
    mask: Any = None,
    masked_output: str = "zero",
    *,
    features: tuple[int, ...] | None,  # the last axes of x; None if they may be any
    dtype: np.dtype | None = None,  # that x is cast to later, so that errors of a list name a part
    batch_first: bool,
    reverse: Sequence[bool] = (),  # of the output, if masked steps may repeat it
) -> Batch:
    """Check the arguments of one call as far as they concern steps, and compact them."""
    if masked_output not in OUTPUTS:
        raise ValueError(f'masked_output: expected "zero" or "repeat", got {masked_output!r}')
    sequences = None
    if isinstance(x, (list, tuple)):
        if lengths is not None:
            raise ValueError("lengths: a list of sequences has its own, so expected None")
        axes = Axes(True, batch_first)
        # Masked steps may hold numbers beyond the dtype's range.
        x, lengths = _pad("x", x, features, axes, dtype=dtype if mask is None else None)
        sequences = lengths
    else:
        x = read_numbers("x", x)
        if features is None:  # then the mask tells
            has_batch = x.ndim > 1 and (mask is None or read_plain("mask", mask).ndim > 1)
        else:
            has_batch = x.ndim > len(features) + 1
        axes = Axes(has_batch, batch_first)
        lead = 1 + has_batch
        if x.ndim < lead or (features is not None and x.shape[lead:] != features):
            both = "batch, steps" if batch_first else "steps, batch"
            wanted = f"{_shape(both, features)} or {_shape('steps', features)}"
            raise ValueError(f"x: expected shape {wanted}, got {x.shape}")
        if lengths is not None and not has_batch:
            raise ValueError("lengths: x is one sequence without a batch axis, so expected None")
    shape = x.shape[: 1 + axes.has_batch]
    B, T = axes.rows(x).shape[:2]
    if lengths is not None:
        lengths = ready(read_lengths("lengths", lengths, T, B))
    if resets is not None:
        resets = _read_flags("resets", resets, shape, axes, sequences)
    kept = None
    if mask is not None:
        mask = _read_flags("mask", mask, shape, axes, sequences)
        x, lengths, resets, kept = _skip(x, lengths, resets, mask, masked_output, axes, reverse)
    given = Given(axes, shape, sequences, kept)
    is_plain = sequences is None and kept is None
    return Batch(x, lengths, resets, axes, None if is_plain else given)


def _skip(
    x: np.ndarray,
    lengths: np.ndarray | None,
    resets: np.ndarray | None,
    mask: np.ndarray,
    masked_output: str,
    axes: Axes,
    reverse: Sequence[bool],
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, Kept | None]:
    """x, lengths and resets without masked steps."""
    rows = axes.rows(mask)
    T = rows.shape[1]
    if lengths is not None:
        rows = rows & within(lengths, T)
    counts = rows.sum(axis=1, dtype=np.intp)
    if masked_output == "zero" and axes.has_batch and (rows == within(counts, T)).all():
        return x, counts, resets, None  # padding on the right alone
    valid = within(counts, counts.max(initial=0))
    kept = Kept(axes, axes.of_rows(rows).copy(), axes.of_rows(valid))
    if masked_output == "repeat":
        kept = kept.repeating(lengths, reverse)
    if resets is not None:
        # A kept step begins a sequence if any step after the kept one before it does.
        begun = kept.compact(axes.of_rows(axes.rows(resets).cumsum(axis=1)))
        resets = axes.of_rows(np.diff(axes.rows(begun), axis=1, prepend=0) > 0)
        resets = np.ascontiguousarray(resets)
    return kept.compact(x), counts if axes.has_batch else None, resets, kept


def within(lengths: np.ndarray, T: int) -> np.ndarray:
    """bool [B, T]: the steps before each row's end."""
    return np.arange(T) < lengths[:, None]


def read_lengths(name: str, value: Any, T: int, B: int) -> np.ndarray:
    """The lengths of B rows, checked to be from 0 to T."""
    lengths = read_integers(name, value)
    check_shape(name, lengths, B)
    if B and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ValueError(f"{name}: expected 0 to {T} steps each, got {lengths.tolist()}")
    return lengths


def _pad(
    name: str,
    sequences: Any,
    features: tuple[int, ...] | None,
    axes: Axes,
    lengths: np.ndarray | None = None,
    dtype: np.dtype | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A list of [T_k, *features] as one padded batch, of `dtype` if given; and the lengths."""
    read = read_numbers if dtype is None else partial(read_array, dtype=dtype)
    arrays = [read(f"{name}[{k}]", part) for k, part in enumerate(sequences)]
    if features is None:
        features = max(arrays, key=np.size).shape[1:] if arrays else ()
    for k, array in enumerate(arrays):
        steps = array.shape[:1] if lengths is None else (lengths[k],)
        if not array.ndim or array.shape != (*steps, *features):
            wanted = _shape("steps" if lengths is None else str(lengths[k]), features)
            raise ValueError(f"{name}[{k}]: expected shape {wanted}, got {array.shape}")
    lengths = np.array([len(array) for array in arrays], np.intp)
    lead = (len(arrays), lengths.max(initial=0))[:: 1 if axes.batch_first else -1]
    dtypes = {array.dtype for array in arrays if array.size} or {np.dtype(np.intp)}
    padded = np.zeros((*lead, *features), np.result_type(*dtypes))
    for row, array in zip(axes.rows(padded), arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


def _read_flags(
    name: str,
    value: Any,
    shape: tuple[int, ...],
    axes: Axes,
    sequences: np.ndarray | None,
) -> np.ndarray:
    """A bool for each step, in the shape of x without its features; of a list, from a list."""
    if sequences is None:
        flags = read_bools(name, value)
        check_shape(name, flags, *shape)
        return np.asarray(flags)
    if not isinstance(value, (list, tuple)) or len(value) != len(sequences):
        raise ValueError(f"{name}: expected a list of {len(sequences)} arrays, as x is")
    padded = np.zeros(shape, np.bool_)
    for k, row in enumerate(axes.rows(padded)):
        flags = read_bools(f"{name}[{k}]", value[k])
        check_shape(f"{name}[{k}]", flags, int(sequences[k]))
        row[: len(flags)] = flags
    return padded


def _shape(steps: str, features: tuple[int, ...] | None) -> str:
    """The text of a shape: axes of steps, then features."""
    sizes = [steps, *(("...",) if features is None else map(str, features))]
    return f"({', '.join(sizes)}{'' if len(sizes) > 1 else ','})"
