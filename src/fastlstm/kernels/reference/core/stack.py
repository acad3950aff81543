"""Stacks: layers of cells, in one direction or several, called with a user's arrays."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from fastlstm.kernels.arguments import Array, Masks, Saved, State, Thresholds, kept, no_memory
from fastlstm.kernels.reference.core.cell import Parts, PythonCell
from fastlstm.kernels.reference.core.layout import (
    Layout,
    are_ready_lengths,
    are_ready_masks,
    are_ready_rows,
    are_updatable,
    is_array,
    is_ready,
    is_ready_state,
    is_room,
    read_layout,
)
from fastlstm.kernels.reference.core.sums import Sum
from fastlstm.kernels.reference.core.walk import quiet, walk_backward, walk_forward


def _naming_sizes(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a MemoryError of a call name the shape of x."""

    @wraps(call)
    def run(stack: "Stack", x: Any, *rest: Any, **options: Any) -> Any:
        try:
            return call(stack, x, *rest, **options)
        except (MemoryError, ValueError) as error:
            if isinstance(error, ValueError) and "array is too big" not in str(error):
                raise
            raise no_memory(x, stack.features) from error

    return run


class Stack(NamedTuple):
    """The arguments of `stack`, checked."""

    cells: tuple[PythonCell, ...]
    reverse: tuple[bool, ...]
    batch_first: bool
    one_step: bool
    threads: int
    thresholds: Thresholds

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.cells[0].dtype)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the parts of every cell's state."""
        return self.cells[0].sizes

    @property
    def features(self) -> int:
        """Number of features of y: D * P."""
        return len(self.reverse) * self.sizes[0]

    def layers(self) -> Iterator[list[tuple[int, PythonCell, bool, slice]]]:
        """For each layer, by direction: (index in `cells`, cell, reverse, its columns of y)."""
        D, P = len(self.reverse), self.sizes[0]
        for first in range(0, len(self.cells), D):
            yield [
                (first + d, self.cells[first + d], self.reverse[d], slice(d * P, (d + 1) * P))
                for d in range(D)
            ]

    def state_shapes(self, layout: Layout) -> list[tuple[int, ...]]:
        return [layout.state_shape(len(self.cells), size) for size in self.sizes]

    def layout_of(self, x: Any) -> Layout | None:
        """The layout of a call with x; None if x is not ready."""
        if not is_ready(x, self.dtype) or x.shape[-1] != self.cells[0].inputs:
            return None
        return read_layout(x, self.batch_first, self.one_step)


def stack(
    cells: Sequence[PythonCell],
    reverse: Sequence[bool],
    batch_first: bool,
    one_step: bool,
    threads: int,
    thresholds: Thresholds,
    /,
) -> Stack:
    """Make a stack of cells, ready for calls.

    Parameters
    ----------
    cells : sequence
        From `pack_lstm`, `pack_gru` or `pack_rnn`, or any `PythonCell`: layer by layer, within a
        layer one for each of D = len(reverse) directions. All have states of the same sizes.
    reverse : sequence of bool
        For each direction, whether it walks from the last step to the first.
    batch_first : bool
        Whether x and y are [B, T, ...] and not [T, B, ...].
    one_step : bool
        Whether a call is one step of one cell: x and y have no axis T, the state no axis L * D.
    threads, thresholds
        No effect in this module.

    Raises
    ------
    ValueError
        When threads < 1, or the cells do not fit together.
    """
    built = Stack(tuple(cells), tuple(reverse), batch_first, one_step, threads, thresholds)
    count, D = len(built.cells), len(built.reverse)
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    if D == 0 or count == 0 or count % D:
        raise ValueError(f"cells: expected a multiple of {D} directions, got {count}")
    if one_step and count != 1:
        raise ValueError(f"cells: expected 1 with one_step, got {count}")
    for k, cell in enumerate(built.cells):
        inputs = built.features if k >= D else built.cells[0].inputs
        expected = inputs, tuple(built.sizes), built.dtype
        got = cell.inputs, tuple(cell.sizes), np.dtype(cell.dtype)
        if got != expected:
            raise ValueError(
                f"cells[{k}]: expected inputs, sizes of the state and dtype {expected}, got {got}"
            )
    return built


@quiet
@_naming_sizes
def forward(
    stack: Stack,
    x: Any,
    state: State = None,
    lengths: Any = None,
    resets: Any = None,
    out: Any = None,
    masks: Sequence[Masks | None] | None = None,
    keep: bool = False,
) -> Any:
    """Run all cells: return (y, state), or (y, state, saved, arguments) with `keep`.

    Returns NotImplemented if an array is not ready. An array is ready when it is an np.ndarray and
    no subclass, of the stack's dtype, aligned, and contiguous along its last axis.

    Parameters
    ----------
    stack : Stack
    x : ready array
        [T, B, I]; [B, T, I] with batch_first; [B, I] with one_step. No axis B for one sequence.
    state : ready array, tuple of ready arrays, or None
        Initial state: one array [L * D, B, size] for each part, in a tuple if there are several.
        No axis B if x has none; no axis L * D with one_step. None for zeros.
    lengths : intp [B] array or None
        0 to T: the number of steps of each row; None for T. Only with an x that has T and B.
    resets : bool array or None
        x's shape without features; where true, no state and no gradient passes between that
        step and the one before, in either direction.
    out : ready array or None
        Is filled and returned as y. It shares no memory with other arguments, and its elements
        share none with each other. Not with one_step or keep.
    masks : sequence or None
        For each cell, the random masks of training, or None; only with `keep`.
    keep : bool
        Whether to compute as in training, and return the arrays that `backward` needs.

    Returns
    -------
    y : array
        Output of the last layer at each step: x's shape with D * P features, those of the first
        direction first. Zero where a row has ended. With one_step, the first part of the state.
    state : array or tuple of arrays
        The state after each row's last step of the walk, in the form of the initial state.
    saved : tuple of Saved
        One for each layer.
    arguments : tuple
        x, state, lengths and resets for `backward`, copied where the caller may change them.
    """
    layout = stack.layout_of(x)
    if layout is None or not _are_ready(stack, layout, state, lengths, resets):
        return NotImplemented
    initial = _parts(stack, state)
    y_shape = (*layout.step_shape(), stack.features)
    if out is not None:
        inputs = [array for array in (x, *initial, lengths, resets) if array is not None]
        if keep or stack.one_step or not is_room(out, stack.dtype, y_shape, inputs):
            return NotImplemented
    sizes = stack.dtype, layout, stack.sizes
    if not are_ready_masks(masks, len(stack.cells), *sizes) or not (masks is None or keep):
        return NotImplemented

    final = _copy_of_state(stack, layout, initial)
    y = np.empty(y_shape, stack.dtype) if out is None else out
    steps, states = layout.steps_first(x), [layout.by_cell(part) for part in final]
    walk = lengths, None if resets is None else layout.steps_first(resets)
    saved = []
    for layer in stack.layers():
        shape = layout.T, layout.B, stack.features
        is_last = layer[-1][0] == len(stack.cells) - 1
        layer_y = layout.steps_first(y) if is_last else np.empty(shape, stack.dtype)
        by_direction = []
        for k, cell, reverse, columns in layer:
            at_cell = tuple(part[k] for part in states)
            mask = _masks_of(masks, k) if keep else None
            cell_y = layer_y[:, :, columns]
            by_direction.append(walk_forward(cell, steps, at_cell, cell_y, *walk, reverse, mask))
        if keep and is_last:  # nobody can write to an array whose memory is a bytes object
            y = layer_y = np.ndarray(y_shape, stack.dtype, y.tobytes())
        saved.append(Saved(layer_y, tuple(by_direction)))
        steps = layer_y
    if not keep:
        return y, _in_form(final)
    first = tuple(map(kept, initial))
    arguments = (
        kept(x),
        _in_form(first) if first else None,
        None if lengths is None else kept(lengths),
        None if resets is None else kept(resets),
    )
    return y, _in_form(final), tuple(saved), arguments


@quiet
@_naming_sizes
def step(stack: Stack, x: Any, state: State, rows: Any = None, out: Any = None) -> Any:
    """Compute one step of some rows, and update their state in place; return y.

    Returns NotImplemented, and changes nothing, if an argument is not as described here. Each row
    is computed alone, so it has the same bits in any company.

    Parameters
    ----------
    stack : Stack
        Of one direction, from the first step to the last.
    x : ready array
        [n, I].
    state : ready array, or tuple of ready arrays
        One array [L, B, size] for each part, [B, size] with one_step. They can be written, and no
        two of their elements share memory.
    rows : intp [n] array, list of n ints, or None
        The rows of the state, all different; None for all B in order.
    out : ready array or None
        [n, P]: is filled and returned as y. It shares no memory with other arguments.
    """
    parts = _parts(stack, state)
    if stack.reverse != (False,) or not (is_ready(x, stack.dtype) and x.ndim == 2):
        return NotImplemented
    if type(parts) is not tuple or not all(is_ready(part, stack.dtype) for part in parts):
        return NotImplemented
    n, B = len(x), parts[0].shape[-2] if parts and parts[0].ndim > 1 else 0
    layout = Layout(1, B, stack.batch_first, stack.one_step, True)
    if (
        x.shape[1] != stack.cells[0].inputs
        or [part.shape for part in parts] != stack.state_shapes(layout)
        or not (are_updatable(parts) and are_ready_rows(rows, n, B))
        or (out is not None and not _is_step_out(stack, out, n, (x, *parts)))
    ):
        return NotImplemented

    y = np.empty((n, stack.features), stack.dtype) if out is None else out
    places = [slice(row, row + 1) for row in (range(n) if rows is None else rows)]
    finals = []
    for k, place in enumerate(places):
        own = _in_form(tuple(part[..., place, :] for part in parts))
        result, final = forward(stack, x[k : k + 1] if stack.one_step else x[None, k : k + 1], own)
        y[k] = result.reshape(-1)
        finals.append(_parts(stack, final))
    for place, final in zip(places, finals, strict=True):
        for part, value in zip(parts, final, strict=True):
            part[..., place, :] = value
    return y


@dataclass
class Sums:
    """What `new_sums` returns."""

    stack: Stack
    steps: int
    B: int
    cells: list[dict[str, Sum]]
    later: int = 0  # steps of the calls until now


def new_sums(stack: Stack, steps: int, B: int, /) -> Sums:
    """Return sums of the gradients of parameters, for calls of `backward`.

    The calls are parts of one call of `steps` steps of B rows, the last steps of the walk first.
    So the stack has one direction or one layer. The bits of the gradients do not depend on the
    number of calls.
    """
    return Sums(stack, steps, B, [{} for _ in stack.cells])


@quiet
@_naming_sizes
def backward(
    stack: Stack,
    x: Array,
    state: State,
    lengths: Array | None,
    resets: Array | None,
    masks: Sequence[Masks | None] | None,
    saved: tuple[Saved, ...],
    dy: Any,
    dstate: State,
    with_x: bool = True,
    sums: Sums | None = None,
    into: Any = None,
    /,
) -> Any:
    """Return (dx, dstate, gradients), or NotImplemented if dy or dstate is not ready.

    Parameters
    ----------
    stack, x, state, lengths, resets, masks
        The masks that `forward` was given, and the arguments that it returned.
    saved : tuple of Saved
        From `forward`. Its arrays may be overwritten, so each serves one call of `backward`.
    dy : ready array or None
        Gradient of y; None for zeros. Values after a row's end are ignored.
    dstate : ready array, tuple of ready arrays, or None
        Gradient of the final state; None for zeros.
    with_x : bool
        False: dx is None.
    sums : Sums or None
        From `new_sums`, if these steps are a part of a call. Then `lengths` may be greater than T:
        these rows go on after the part.
    into : ready array or None
        Is returned as dx: the gradient of x is added to it.

    Returns
    -------
    dx : array or None
        Gradient of x, zero where a row has ended.
    dstate : array or tuple of arrays
        Gradient of the initial state.
    gradients : tuple of tuples of arrays, or None
        For each cell, the gradients of its parameters in the order of the cell's `names`; None if
        `sums` expects further steps.
    """
    layout = stack.layout_of(x)
    if layout is None or not is_ready_state(dstate, stack.dtype, stack.state_shapes(layout)):
        return NotImplemented
    y_shape = (*layout.step_shape(), stack.features)
    if dy is not None and not (is_ready(dy, stack.dtype) and dy.shape == y_shape):
        return NotImplemented

    sums = sums or new_sums(stack, layout.T, layout.B)
    later = sums.later + layout.T
    if sums.stack is not stack or sums.B != layout.B or later > sums.steps:
        raise ValueError("sums: expected those of this stack, for as many steps and rows")
    ends = later == sums.steps
    dx = np.zeros(x.shape, stack.dtype) if into is None else into
    initial = [layout.by_cell(part) for part in _copy_of_state(stack, layout, _parts(stack, state))]
    gradient = _copy_of_state(stack, layout, _parts(stack, dstate))
    d_states = [layout.by_cell(part) for part in gradient]
    dy = layout.steps_first(np.zeros(y_shape, stack.dtype) if dy is None else dy)
    walk = lengths, None if resets is None else layout.steps_first(resets)
    gradients: list[tuple[Array, ...] | None] = []
    for number, layer in reversed(list(enumerate(stack.layers()))):
        y = saved[number].y
        y = layout.steps_first(y) if number == len(saved) - 1 else y
        below = layout.steps_first(x) if number == 0 else saved[number - 1].y
        d_below = layout.steps_first(dx) if number == 0 else np.zeros(below.shape, stack.dtype)
        of_layer = []
        for d, (k, cell, reverse, columns) in enumerate(layer):
            before, after = (tuple(part[k] for part in parts) for parts in (initial, d_states))
            outputs = before, y[:, :, columns], saved[number].cells[d], dy[:, :, columns]
            mask, of_cell = _masks_of(masks, k), sums.cells[k]
            of_layer.append(
                walk_backward(
                    cell, below, *outputs, after, d_below, *walk, reverse, mask, of_cell, ends
                )
            )
        gradients[:0] = of_layer
        dy = d_below
    sums.later = later
    return dx if with_x else None, _in_form(gradient), tuple(gradients) if ends else None


def _are_ready(stack: Stack, layout: Layout, state: Any, lengths: Any, resets: Any) -> bool:
    return (
        is_ready_state(state, stack.dtype, stack.state_shapes(layout))
        and are_ready_lengths(lengths, layout)
        and (resets is None or is_array(resets, np.bool_, layout.step_shape()))
    )


def _is_step_out(stack: Stack, out: Any, n: int, inputs: Parts) -> bool:
    return (
        is_ready(out, stack.dtype)
        and out.shape == (n, stack.features)
        and are_updatable([out])
        and not any(np.shares_memory(out, array) for array in inputs)
    )


def _parts(stack: Stack, state: State) -> Parts:
    """The parts of a state in the caller's form; () for None."""
    if state is None:
        return ()
    return state if len(stack.sizes) > 1 else (state,)


def _copy_of_state(stack: Stack, layout: Layout, parts: Parts) -> Parts:
    """New arrays with the values of `parts`; zeros for ()."""
    if parts:
        return tuple(np.array(part, order="C") for part in parts)
    return tuple(np.zeros(shape, stack.dtype) for shape in stack.state_shapes(layout))


def _in_form(parts: Parts) -> State:
    return parts if len(parts) > 1 else parts[0]


def _masks_of(masks: Sequence[Masks | None] | None, k: int) -> Masks:
    return (None if masks is None else masks[k]) or Masks()
