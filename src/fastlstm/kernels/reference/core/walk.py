"""The walk through time, the same for every cell.

A row of the batch is *live* at step t when t < lengths[row]. The walk goes through the steps from
first to last, or from last to first when reversed, and at each step the cell computes the live
rows. So a reversed row starts at its own last step. A row that is not live keeps its state, and
its output is zero.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from fastlstm.kernels.arguments import Array, Masks
from fastlstm.kernels.reference.core.cell import Parts, PythonCell, Term
from fastlstm.kernels.reference.core.sums import Sum

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def quiet(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`function` without warnings of infinities and NaNs, as in compiled builds."""

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # An errstate of its own for each call: NumPy 1 cannot enter one twice.
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run


def live_rows(
    T: int, B: int, lengths: Array | None, reverse: bool = False
) -> Iterator[tuple[int, Array]]:
    """Each step t in the order of the walk, with the rows that are live at it."""
    for t in range(T)[:: -1 if reverse else 1]:
        yield t, np.arange(B) if lengths is None else np.flatnonzero(lengths > t)


def walk_forward(
    cell: PythonCell,
    x: Array,  # [T, B, I]
    state: Parts,  # each [B, size]; becomes the final state
    y: Array,  # OUT [T, B, P]
    lengths: Array | None,  # [B]
    resets: Array | None,  # bool [T, B]
    reverse: bool,
    masks: Masks | None,  # None in inference
) -> Parts:
    """Run one cell over the whole sequence; returns the arrays it saves, each [T, B, ...]."""
    T, B, _ = x.shape
    saved = () if masks is None else _room_for_saved(cell, T, B, masks)
    cuts = cuts_of(resets, lengths, reverse)
    y[...] = 0
    for t, rows in live_rows(T, B, lengths, reverse):
        before = cut([part[rows] for part in state], cuts, t, rows)
        own = None if masks is None else _masks_at(masks, t, rows)
        after, to_save = cell.step(x[t, rows], before, own)
        for part, value in zip(state, after, strict=True):
            part[rows] = value
        y[t, rows] = after[0]
        if masks is not None:
            for array, value in zip(saved, to_save, strict=True):
                array[t, rows] = value
    return saved


def walk_backward(
    cell: PythonCell,
    x: Array,  # [T, B, I]
    state: Parts,  # each [B, size]: the initial state
    y: Array,  # [T, B, P]
    saved: Parts,  # from walk_forward
    dy: Array,  # [T, B, P]
    d_state: Parts,  # IN each [B, size]: gradient of the final state; OUT: of the initial state
    dx: Array,  # [T, B, I]: the gradient is added to it
    lengths: Array | None,
    resets: Array | None,
    reverse: bool,
    masks: Masks,
    sums: dict[str, Sum],  # by parameter; none at first
    ends: bool,  # whether no call for steps before these follows
) -> tuple[Array, ...] | None:
    """Run one cell back through time; returns the gradients of its parameters if this `ends` it."""
    T, B, _ = x.shape
    cuts = cuts_of(resets, lengths, reverse)
    states = y, *saved[1 : len(state)]  # the state after each step
    befores = [
        states_before(after, initial, lengths, cuts, reverse)
        for after, initial in zip(states, state, strict=True)
    ]
    terms = {name: [term] for name, term in _terms_of_no_rows(cell, saved, masks).items()}
    for t, rows in reversed(list(live_rows(T, B, lengths, reverse))):
        d_after = [part[rows] for part in d_state]
        d_after[0] += dy[t, rows]
        dx_t, d_before, terms_t = cell.step_backward(
            x[t, rows],
            tuple(before[t, rows] for before in befores),
            tuple(array[t, rows] for array in saved),
            tuple(d_after),
            _masks_at(masks, t, rows),
        )
        dx[t, rows] += dx_t
        for part, value in zip(d_state, cut(d_before, cuts, t, rows), strict=True):
            part[rows] = value
        for name in cell.names:
            terms[name].append(terms_t[name])
    for name in cell.names:
        sums.setdefault(name, Sum()).add(terms[name], ends)
    return tuple(sums[name].total() for name in cell.names) if ends else None


def cuts_of(resets: Array | None, lengths: Array | None, reverse: bool) -> Array | None:
    """Bools [T, B]: whether the state before the step of the walk at t is zero.

    A reset at t separates the steps t - 1 and t. So a walk in reverse, which comes to t from t + 1,
    is cut by a reset at t + 1; its initial state, which comes from no step, by none.
    """
    if resets is None or not reverse:
        return resets
    cuts = np.zeros_like(resets)
    cuts[:-1] = resets[1:]
    if lengths is not None:
        cuts &= np.arange(1, len(resets) + 1)[:, None] < lengths
    return cuts


def cut(parts: Sequence[Array], cuts: Array | None, t: int, rows: Array) -> Parts:
    """The parts [n, size] of a state or of its gradient, with zeros in rows that are cut at t."""
    if cuts is None:
        return tuple(parts)
    return tuple(np.where(cuts[t, rows, None], 0, part) for part in parts)


def states_before(
    after: Array,  # [T, B, N]: a part of the state after each step
    initial: Array,  # [B, N]
    lengths: Array | None,
    cuts: Array | None,
    reverse: bool,
) -> Array:
    """[T, B, N] the same part of the state before each step; zero in rows cut there."""
    T, B, _ = after.shape
    current = initial.copy()
    before = np.zeros_like(after)
    for t, rows in live_rows(T, B, lengths, reverse):
        before[t, rows] = current[rows]
        current[rows] = after[t, rows]
    if cuts is not None:
        before[cuts] = 0
    return before


def _masks_at(masks: Masks, t: int, rows: Array) -> Masks:
    recurrent, kept_h, kept_c = masks
    return Masks(
        None if recurrent is None else recurrent[rows],
        None if kept_h is None else kept_h[t, rows],
        None if kept_c is None else kept_c[t, rows],
    )


def _step_of_no_rows(cell: PythonCell, masks: Masks) -> tuple[Array, Parts, Masks, Parts, Parts]:
    """x, state and masks of zero rows; then the state after a step of them and the saved arrays."""
    x = np.zeros((0, cell.inputs), cell.dtype)
    state = tuple(np.zeros((0, size), cell.dtype) for size in cell.sizes)
    recurrent, kept_h, kept_c = masks
    no_masks = Masks(
        None if recurrent is None else recurrent[:0],
        None if kept_h is None else np.zeros((0, kept_h.shape[2]), np.bool_),
        None if kept_c is None else np.zeros((0, kept_c.shape[2]), np.bool_),
    )
    return x, state, no_masks, *cell.step(x, state, no_masks)


def _room_for_saved(cell: PythonCell, T: int, B: int, masks: Masks) -> Parts:
    *_, state, saved = _step_of_no_rows(cell, masks)
    for k in range(1, len(state)):
        if k >= len(saved) or saved[k] is not state[k]:
            raise ValueError(f"saved[{k}]: expected state[{k}] itself from step, got another array")
    return tuple(np.zeros((T, B, *array.shape[1:]), array.dtype) for array in saved)


def _terms_of_no_rows(cell: PythonCell, saved: Parts, masks: Masks) -> dict[str, Term]:
    """Terms of zero rows: they add nothing, and give the shapes of gradients without any step."""
    x, state, no_masks, *_ = _step_of_no_rows(cell, masks)
    no_saved = tuple(np.zeros((0, *array.shape[2:]), array.dtype) for array in saved)
    return cell.step_backward(x, state, no_saved, state, no_masks)[2]
