"""The one way in: a caller's arrays, checked and brought into the kernels' layout."""

from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import as_array, as_bools, as_integers, check_shape
from fastlstm.layers.state import Part, StateLayout, arrays_of, copy_of


class Rows(NamedTuple):
    """The rows of the batch that a kernel works on; None, None for all of them to the end."""

    rows: np.ndarray | None = None  # [n], longest first
    live: np.ndarray | None = None  # [T]: rows[:live[t]] have not ended at step t

    def split(self, parts: int, batch: int) -> "list[Rows]":
        """The same rows dealt to up to `parts` kernel calls of about equal work."""
        if min(parts, batch) <= 1:
            return [self]
        if self.rows is None or self.live is None:
            return [Rows(part) for part in np.array_split(np.arange(batch), min(parts, batch))]
        return [
            Rows(np.ascontiguousarray(self.rows[k::parts]), (self.live - k + parts - 1) // parts)
            for k in range(min(parts, batch))
        ]


class Plan(NamedTuple):
    """One call's arguments in the kernels' layout, and the form its results are given back in."""

    form: str  # "batch", "single" (no batch axis) or "list" (of sequences)
    batch_first: bool
    x: np.ndarray  # [T, B, I]
    layout: StateLayout
    state: tuple[Part, ...]
    rows: Rows
    lengths: np.ndarray | None  # [B]
    resets: np.ndarray | None  # [T, B]

    def to_steps(self, array: np.ndarray) -> np.ndarray:
        """An array in the caller's layout as a view [T, B, ...]."""
        return _to_steps(array, self.form, self.batch_first)

    def empty(self, features: int) -> np.ndarray:
        """An uninitialised result in the caller's layout."""
        T, B, _ = self.x.shape
        return np.empty((*_leading(self.form, self.batch_first, T, B), features), self.x.dtype)

    def room_in(self, out: np.ndarray, features: int) -> np.ndarray:
        """A caller's `out` where the kernels can write to it directly, else what `empty` gives."""
        fresh = self.empty(features)
        if self.form == "list":
            raise ValueError("out: x is a list, whose results differ in length, so expected None")
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out: expected an array, got {type(out).__name__}")
        if out.dtype != fresh.dtype:
            raise TypeError(f"out: expected dtype {fresh.dtype}, got {out.dtype}")
        check_shape("out", out, *fresh.shape)
        if not out.flags.writeable:
            raise ValueError("out: expected a writeable array, got a read-only one")
        if any(n > 1 and not stride for n, stride in zip(out.shape, out.strides, strict=True)):
            raise ValueError(f"out: expected elements of its own, got strides {out.strides}")
        shared = any(np.may_share_memory(out, array) for array in (self.x, *arrays_of(self.state)))
        return fresh if shared or rows_contiguous(out) is not out else out

    def give_back(self, array: np.ndarray) -> Any:
        """What `empty` made and the kernels filled, as the caller gets it."""
        if self.lengths is None or self.form != "list":
            return array
        return [array[:length, row].copy() for row, length in enumerate(self.lengths)]

    def give_state_back(self, state: tuple[Part, ...]) -> Any:
        return self.layout.give_back(state, self.form == "single")

    def read_gradient(self, name: str, value: Any, features: int) -> np.ndarray:
        """A caller's gradient of the output as [T, B, features]; zeros for None."""
        T, B, _ = self.x.shape
        if value is None:
            return np.zeros((T, B, features), self.x.dtype)
        if self.lengths is not None and self.form == "list":
            if not isinstance(value, (list, tuple)) or len(value) != B:
                raise ValueError(f"{name}: expected a list of {B} arrays, as the output is")
            return _pad(name, value, features, self.x.dtype, self.lengths)[0]
        array = as_array(name, value, self.x.dtype)
        check_shape(name, array, *_leading(self.form, self.batch_first, T, B), features)
        return rows_contiguous(self.to_steps(array))

    def read_state_gradient(self, name: str, value: Any) -> tuple[Part, ...]:
        """A caller's gradient of the state, as fresh arrays shaped as `state`; zeros for None."""
        x, single = self.x, self.form == "single"
        return tuple(map(copy_of, self.layout.read(name, value, x.shape[1], single, x.dtype)))


def make_plan(
    x: Any,
    state: Any,
    lengths: Any,
    resets: Any,
    *,
    features: int,
    batch_first: bool,
    layout: StateLayout,
    dtype: np.dtype,
) -> Plan:
    """Check one call's arguments."""
    if isinstance(x, (list, tuple)):
        form = "list"
        if lengths is not None:
            raise ValueError("lengths: a list of sequences has its own, so expected None")
        steps, lengths = _pad("x", x, features, dtype)
    else:
        array = as_array("x", x, dtype)
        if array.ndim not in (2, 3) or array.shape[-1] != features:
            axes = "batch, steps" if batch_first else "steps, batch"
            raise ValueError(
                f"x: expected shape ({axes}, {features}) or (steps, {features}), got {array.shape}"
            )
        form = "single" if array.ndim == 2 else "batch"
        steps = rows_contiguous(_to_steps(array, form, batch_first))
        if form == "single" and lengths is not None:
            raise ValueError("lengths: x is one sequence without a batch axis, so expected None")
    T, B, _ = steps.shape
    rows = Rows()
    if lengths is not None:
        lengths = read_lengths("lengths", lengths, T, B)
        if (lengths < T).any():
            longest_first = np.argsort(-lengths, kind="stable")
            live = np.searchsorted(-lengths[longest_first], -np.arange(T), side="left")
            rows = Rows(longest_first, live)
    if resets is not None:
        resets = _read_resets(resets, form, batch_first, T, B, lengths)
    parts = layout.read("state", state, B, form == "single", dtype)
    return Plan(form, batch_first, steps, layout, parts, rows, lengths, resets)


def read_lengths(name: str, value: Any, T: int, B: int) -> np.ndarray:
    """How many of T steps each of B rows has."""
    lengths = as_integers(name, value)
    check_shape(name, lengths, B)
    if B and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ValueError(f"{name}: expected 0 to {T} steps each, got {lengths.tolist()}")
    return lengths


def rows_contiguous(array: np.ndarray) -> np.ndarray:
    """`array`, or a copy of it where its last axis is not contiguous or not aligned."""
    if array.strides[-1] == array.itemsize and array.flags.aligned:
        return array
    return array.copy()


def _leading(form: str, batch_first: bool, T: int, B: int) -> tuple[int, ...]:
    """The axes of a caller's array before its features."""
    if form == "single":
        return (T,)
    return (B, T) if batch_first and form == "batch" else (T, B)


def _to_steps(array: np.ndarray, form: str, batch_first: bool) -> np.ndarray:
    if form == "single":
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first and form == "batch" else array


def _pad(
    name: str, sequences: Any, features: int, dtype: np.dtype, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A list of [T_k, features] as [T, B, features] with zeros behind, and the lengths."""
    arrays = [as_array(f"{name}[{k}]", part, dtype) for k, part in enumerate(sequences)]
    for k, array in enumerate(arrays):
        steps = "steps" if lengths is None else lengths[k]
        if array.ndim != 2 or array.shape[1] != features or steps not in ("steps", len(array)):
            raise ValueError(
                f"{name}[{k}]: expected shape ({steps}, {features}), got {array.shape}"
            )
    lengths = np.array([len(array) for array in arrays], np.intp)
    padded = np.zeros((lengths.max(initial=0), len(arrays), features), dtype)
    for k, array in enumerate(arrays):
        padded[: len(array), k] = array
    return padded, lengths


def _read_resets(
    resets: Any, form: str, batch_first: bool, T: int, B: int, lengths: np.ndarray | None
) -> np.ndarray:
    """[T, B] of bools, contiguous."""
    if lengths is not None and form == "list":
        if not isinstance(resets, (list, tuple)) or len(resets) != B:
            raise ValueError(f"resets: expected a list of {B} arrays, as x is")
        steps = np.zeros((T, B), np.bool_)
        for k, part in enumerate(resets):
            part = as_bools(f"resets[{k}]", part)
            check_shape(f"resets[{k}]", part, lengths[k])
            steps[: len(part), k] = part
        return steps
    resets = as_bools("resets", resets)
    check_shape("resets", resets, *_leading(form, batch_first, T, B))
    return np.ascontiguousarray(_to_steps(resets, form, batch_first))
