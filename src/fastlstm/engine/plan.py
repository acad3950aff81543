"""How a caller's arrays are checked and brought into a form that kernels can read."""

from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import check_shape, read_array, read_integers, read_zeros_and_ones
from fastlstm.engine.state import StateLayout, arrays_of, read_ready, ready
from fastlstm.kernels.arguments import has_own_elements


class Form(NamedTuple):
    """The form of x and of a state in the calls of one layer."""

    inputs: int  # features of x
    outputs: int  # features of y, of all directions together
    batch_first: bool
    one_step: bool  # whether x is one step of a cell, without an axis of steps
    layout: StateLayout
    dtype: np.dtype


class Call(NamedTuple):
    """One call's arguments, ready for kernels, in the caller's layout."""

    x: np.ndarray
    state: Any = None
    lengths: np.ndarray | None = None
    resets: np.ndarray | None = None
    sequences: np.ndarray | None = None  # lengths of the sequences, if x was a list of them

    @property
    def arguments(self) -> tuple[Any, Any, Any, Any]:
        """The first arguments of the kernels' `forward`."""
        return self.x, self.state, self.lengths, self.resets

    def sizes(self, form: Form) -> tuple[int, int]:
        """T, B."""
        if form.one_step:
            return 1, len(self.x) if self.x.ndim == 2 else 1
        T, B = self.x.shape[:2] if self.x.ndim == 3 else (len(self.x), 1)
        return (B, T) if self.x.ndim == 3 and form.batch_first else (T, B)

    def batch(self, form: Form) -> tuple[int, ...]:
        """(B,), or () if x has no batch axis."""
        return (self.sizes(form)[1],) if self.x.ndim == 3 - form.one_step else ()

    def give_back(self, y: np.ndarray, form: Form) -> Any:
        """A result in the form of x: a list if x was a list."""
        if self.sequences is None:
            return y
        steps = y.swapaxes(0, 1) if form.batch_first else y
        return [steps[:length, row].copy() for row, length in enumerate(self.sequences)]


def read_call(x: Any, state: Any, lengths: Any, resets: Any, form: Form) -> Call:
    """Check the arguments of one call, and make them ready."""
    if form.one_step:
        return _read_step(x, state, form)
    if isinstance(x, (list, tuple)):
        if lengths is not None:
            raise ValueError("lengths: a list of sequences has its own, so expected None")
        array, lengths = pad("x", x, form.inputs, form)
        call = Call(array, lengths=lengths, sequences=lengths)
    else:
        array = _read_steps("x", x, lengths, form)
        if array.ndim not in (2, 3) or array.shape[-1] != form.inputs:
            axes = "batch, steps" if form.batch_first else "steps, batch"
            raise ValueError(
                f"x: expected shape ({axes}, {form.inputs}) or (steps, {form.inputs}), "
                f"got {array.shape}"
            )
        if array.ndim == 2 and lengths is not None:
            raise ValueError("lengths: x is one sequence without a batch axis, so expected None")
        call = Call(ready(array))
    T, B = call.sizes(form)
    if lengths is not None:
        call = call._replace(lengths=ready(read_lengths("lengths", lengths, T, B)))
    if resets is not None:
        call = call._replace(resets=_read_resets(resets, call, form))
    return call._replace(state=form.layout.read("state", state, call.batch(form), form.dtype))


def _read_steps(name: str, value: Any, lengths: Any, form: Form) -> np.ndarray:
    """Read an array of steps; after a row's end it may hold numbers beyond the dtype's range."""
    try:
        return read_array(name, value, form.dtype)
    except ValueError:
        array = np.array(value)
        if lengths is None or array.ndim != 3:
            raise
        rows = array if form.batch_first else array.swapaxes(0, 1)
        B, T = rows.shape[:2]
        rows[np.arange(T) >= read_lengths("lengths", lengths, T, B)[:, None]] = 0
        return read_array(name, array, form.dtype)


def _read_step(x: Any, state: Any, form: Form) -> Call:
    array = read_array("x", x, form.dtype)
    size = form.inputs
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise ValueError(f"x: expected shape (batch, {size}) or ({size},), got {array.shape}")
    call = Call(ready(array))
    return call._replace(state=read_step_state("state", state, call, form))


def read_step_state(name: str, state: Any, call: Call, form: Form) -> Any:
    """The state of a cell, or its gradient, checked and ready; it has no axis of layers."""
    if state is None:
        return None
    names = form.layout.names
    parts = state if len(names) > 1 else (state,)
    if not isinstance(parts, (tuple, list)) or len(parts) != len(names):
        raise ValueError(f"{name}: expected ({', '.join(names)}), got {type(state).__name__}")
    arrays = tuple(
        read_ready(f"{name}: {part_name}", part, (*call.batch(form), sizes[0]), form.dtype)
        for part_name, part, sizes in zip(names, parts, form.layout.sizes, strict=True)
    )
    return arrays if len(arrays) > 1 else arrays[0]


def read_gradient(dy: Any, call: Call, form: Form) -> np.ndarray | None:
    """A caller's gradient of the output, ready; None for zeros."""
    _, B = call.sizes(form)
    if dy is None:
        return None
    if call.sequences is not None:
        if not isinstance(dy, (list, tuple)) or len(dy) != B:
            raise ValueError(f"dy: expected a list of {B} arrays, as the output is")
        return pad("dy", dy, form.outputs, form, call.sequences)[0]
    dy = _read_steps("dy", dy, call.lengths, form)
    return read_ready("dy", dy, (*call.x.shape[:-1], form.outputs), form.dtype)


def check_out(out: Any, call: Call, form: Form) -> None:
    """Raise unless the result of this call can be stored in `out`."""
    if call.sequences is not None:
        raise ValueError("out: x is a list, whose results differ in length, so expected None")
    check_array_out(out, (*call.x.shape[:-1], form.outputs), form.dtype)
    for name, other in (("lengths", call.lengths), ("resets", call.resets)):
        if other is not None and np.shares_memory(out, other):
            raise ValueError(f"out: expected memory of its own, got that of {name}")


def check_array_out(out: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless a result of this shape can be stored in `out`."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out: expected an array, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"out: expected dtype {dtype}, got {out.dtype}")
    check_shape("out", out, *shape)
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, got a read-only one")
    if not has_own_elements(out):
        raise ValueError(f"out: expected elements of its own, got strides {out.strides}")


def is_apart(out: np.ndarray, call: Call) -> bool:
    """Whether `out` shares no memory with x and the state."""
    return not any(np.may_share_memory(out, array) for array in (call.x, *arrays_of(call.state)))


def read_lengths(name: str, value: Any, T: int, B: int) -> np.ndarray:
    """The lengths of B rows, checked to be from 0 to T."""
    lengths = read_integers(name, value)
    check_shape(name, lengths, B)
    if B and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ValueError(f"{name}: expected 0 to {T} steps each, got {lengths.tolist()}")
    return lengths


def pad(
    name: str, sequences: Any, features: int, form: Form, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A list of [T_k, features] as one padded batch in the layer's layout; and the lengths."""
    arrays = [read_array(f"{name}[{k}]", part, form.dtype) for k, part in enumerate(sequences)]
    for k, array in enumerate(arrays):
        steps = "steps" if lengths is None else lengths[k]
        if array.ndim != 2 or array.shape[1] != features or steps not in ("steps", len(array)):
            raise ValueError(
                f"{name}[{k}]: expected shape ({steps}, {features}), got {array.shape}"
            )
    lengths = np.array([len(array) for array in arrays], np.intp)
    shape = (len(arrays), lengths.max(initial=0))
    padded = np.zeros((*(shape if form.batch_first else shape[::-1]), features), form.dtype)
    rows = padded if form.batch_first else padded.swapaxes(0, 1)
    for k, array in enumerate(arrays):
        rows[k, : len(array)] = array
    return padded, lengths


def _read_resets(resets: Any, call: Call, form: Form) -> np.ndarray:
    """Resets as one array of bools, in the shape of x without its features."""
    if call.sequences is None:
        resets = read_zeros_and_ones("resets", resets)
        check_shape("resets", resets, *call.x.shape[:-1])
        return np.asarray(resets)
    if not isinstance(resets, (list, tuple)) or len(resets) != len(call.sequences):
        raise ValueError(f"resets: expected a list of {len(call.sequences)} arrays, as x is")
    padded = np.zeros(call.x.shape[:-1], np.bool_)
    rows = padded if form.batch_first else padded.T
    for k, part in enumerate(resets):
        part = read_zeros_and_ones(f"resets[{k}]", part)
        check_shape(f"resets[{k}]", part, call.sequences[k])
        rows[k, : len(part)] = part
    return padded
