"""How a caller's arrays are checked and brought into a form that kernels can read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import check_shape, read_array
from fastlstm.engine.reading.mask import Given, read_batch, within
from fastlstm.engine.reading.state import StateLayout, arrays_of, read_ready, ready
from fastlstm.kernels.arguments import Kernels, has_own_elements
from fastlstm.module import Parameters, Tape


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
    given: Given | None = None  # the form in which x came, if it was a list or had a mask

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


@dataclass(slots=True, eq=False)
class RecurrentTape(Tape):
    """The tape that `forward` of a recurrent layer returns for its `backward`."""

    parameters: Parameters
    kernels: Kernels
    arguments: tuple[Any, Any, Any, Any]  # x, state, lengths, resets, from the kernels' `forward`
    masks: Any  # the random numbers of the call, in the form for the prepared call
    saved: Any
    given: Given | None = None  # the form in which x came, if it was a list or had a mask
    learned_state: bool = False  # True: the call began with the learned state
    recompute: int | str | None = None  # as given to `forward`

    @property
    def call(self) -> Call:
        return Call(*self.arguments, self.given)


class Opened(NamedTuple):
    """What a call computed on the way: see `Stack._opened`."""

    call: Call
    y: np.ndarray  # before it is given the form of x
    final: Any
    saved: Any  # from the kernels' `forward`; None if a cell draws random numbers in training
    steps: list[list[Any]]  # by layer and direction: `Whole` for one step of this cell alone
    parameters: Parameters


def read_call(
    x: Any,
    state: Any,
    lengths: Any,
    resets: Any,
    form: Form,
    mask: Any = None,
    masked_output: str = "zero",
    reverse: Sequence[bool] = (),
) -> Call:
    """Check the arguments of one call, and make them ready."""
    if form.one_step:
        return _read_step(x, state, form)
    batch = read_batch(
        x,
        lengths,
        resets,
        mask,
        masked_output,
        features=(form.inputs,),
        dtype=form.dtype,
        batch_first=form.batch_first,
        reverse=reverse,
    )
    call = Call(
        ready(_read_steps("x", batch.x, batch.lengths, form)),
        lengths=batch.lengths,
        resets=batch.resets,
        given=batch.given,
    )
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
        if len(rows) != len(lengths):
            raise
        rows[~within(lengths, rows.shape[1])] = 0
        return read_array(name, array, form.dtype)


def _read_step(x: Any, state: Any, form: Form) -> Call:
    array = read_array("x", x, form.dtype)
    size = form.inputs
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise ValueError(f"x: expected shape (batch, {size}) or ({size},), got {array.shape}")
    call = Call(ready(array))
    return call._replace(state=form.layout.read_step("state", state, call.batch(form), form.dtype))


def read_gradient(dy: Any, call: Call, form: Form) -> np.ndarray | None:
    """A caller's gradient of the output, ready; None for zeros."""
    if dy is None:
        return None
    if call.given is not None:
        dy = call.given.read_gradient(dy, (form.outputs,))
    dy = _read_steps("dy", dy, call.lengths, form)
    return read_ready("dy", dy, (*call.x.shape[:-1], form.outputs), form.dtype)


def check_out(out: Any, call: Call, form: Form) -> None:
    """Raise unless the result of this call can be stored in `out`."""
    if call.given is not None and call.given.sequences is not None:
        raise ValueError("out: x is a list, whose results differ in length, so expected None")
    shape = call.x.shape[:-1] if call.given is None else call.given.shape
    check_array_out(out, (*shape, form.outputs), form.dtype)
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
