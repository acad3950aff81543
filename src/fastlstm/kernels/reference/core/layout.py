"""The axes of a caller's arrays, and whether kernels can compute with the arrays without a copy.

`forward` and `backward` accept only arrays that are *ready*, and return NotImplemented for others.
The caller then copies them into such a form, or raises an error that names the argument.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from fastlstm.kernels.arguments import Array, Masks, has_own_elements


class Layout(NamedTuple):
    """Which axes the arrays of one call have.

    x, y and their gradients are [T, B, N] or, with batch_first, [B, T, N]. There is no axis T with
    one_step, and no axis B for a single sequence. A part of the state is [L * D, B, size], with
    one_step [B, size].
    """

    T: int
    B: int
    batch_first: bool
    one_step: bool
    has_batch: bool

    def step_shape(self) -> tuple[int, ...]:
        """The axes of x before its features."""
        T, B = () if self.one_step else (self.T,), (self.B,) if self.has_batch else ()
        return B + T if self.batch_first else T + B

    def state_shape(self, cells: int, size: int) -> tuple[int, ...]:
        """The shape of a part of the state."""
        lead, B = () if self.one_step else (cells,), (self.B,) if self.has_batch else ()
        return (*lead, *B, size)

    def steps_first(self, array: Array) -> Array:
        """A view [T, B, ...] of x, y or resets."""
        if self.one_step:
            array = array[None]
        if not self.has_batch:
            return array[:, None]
        return array.swapaxes(0, 1) if self.batch_first and not self.one_step else array

    def by_cell(self, part: Array) -> Array:
        """A view [L * D, B, size] of a part of the state."""
        if self.one_step:
            part = part[None]
        return part if self.has_batch else part[:, None]


def read_layout(x: Array, batch_first: bool, one_step: bool) -> Layout | None:
    """The layout of a call with x; None if x has too few or too many axes."""
    *lead, _ = x.shape
    if one_step and len(lead) < 2:
        return Layout(1, lead[0] if lead else 1, batch_first, True, bool(lead))
    if not one_step and len(lead) == 1:
        return Layout(lead[0], 1, batch_first, False, False)
    if not one_step and len(lead) == 2:
        B, T = lead if batch_first else reversed(lead)
        return Layout(T, B, batch_first, False, True)
    return None


def is_array(array: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    return type(array) is np.ndarray and array.dtype == dtype and array.shape == shape


def is_ready(array: Any, dtype: np.dtype) -> bool:
    """Whether `array` is an aligned array of this dtype, contiguous along its last axis.

    Strides are ignored in arrays without elements, and in those whose last axis has length 1.
    """
    return (
        type(array) is np.ndarray
        and array.dtype == dtype
        and array.flags.aligned
        and array.ndim > 0
        and (array.size == 0 or array.shape[-1] == 1 or array.strides[-1] == array.itemsize)
    )


def is_ready_state(state: Any, dtype: np.dtype, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether `state` is None, or one ready array for each of `shapes`, in a tuple if several."""
    if state is None:
        return True
    if len(shapes) == 1:
        state = (state,)
    return (
        type(state) is tuple
        and len(state) == len(shapes)
        and all(
            is_ready(part, dtype) and part.shape == shape
            for part, shape in zip(state, shapes, strict=True)
        )
    )


def are_ready_lengths(lengths: Any, layout: Layout) -> bool:
    return lengths is None or (
        layout.has_batch
        and not layout.one_step
        and is_array(lengths, np.intp, (layout.B,))
        and bool(((lengths >= 0) & (lengths <= layout.T)).all())
    )


def are_ready_masks(
    masks: Any, cells: int, dtype: np.dtype, layout: Layout, sizes: tuple[int, ...]
) -> bool:
    """Whether `masks` is None, or has for every cell None or Masks of the right shapes."""
    return masks is None or (
        len(masks) == cells
        and all(mask is None or _are_ready_masks(mask, dtype, layout, sizes) for mask in masks)
    )


def _are_ready_masks(masks: Masks, dtype: np.dtype, layout: Layout, sizes: tuple[int, ...]) -> bool:
    T, B, *_ = layout
    recurrent, kept_h, kept_c = masks
    return (
        (recurrent is None or is_array(recurrent, dtype, (B, sizes[0])))
        and (kept_h is None or is_array(kept_h, np.bool_, (T, B, sizes[0])))
        and (kept_c is None or is_array(kept_c, np.bool_, (T, B, sizes[-1])))
    )


def is_room(out: Any, dtype: np.dtype, shape: tuple[int, ...], inputs: Sequence[Array]) -> bool:
    """Whether `out` can be written: it shares no memory with an input or within itself."""
    return (
        is_ready(out, dtype)
        and out.shape == shape
        and out.flags.writeable
        and has_own_elements(out)
        and not any(np.may_share_memory(out, array) for array in inputs)
    )


def are_updatable(arrays: Sequence[Array]) -> bool:
    """Whether ready arrays can be written, and share no memory with one another or within."""
    return all(array.flags.writeable and has_own_elements(array) for array in arrays) and not any(
        np.shares_memory(array, other) for array, other in combinations(arrays, 2)
    )


def are_ready_rows(rows: Any, n: int, B: int) -> bool:
    """Whether `rows` is None for all of B rows, or has n different rows from 0 to B - 1."""
    if rows is None:
        return n == B
    if type(rows) is list and all(type(row) is int and 0 <= row < B for row in rows):
        rows = np.array(rows, np.intp)
    return (
        is_array(rows, np.intp, (n,))
        and bool(((rows >= 0) & (rows < B)).all())
        and len(np.unique(rows)) == n
    )
