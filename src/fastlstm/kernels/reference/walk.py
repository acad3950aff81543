"""Which rows live at which step, and what came before them."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

quiet = np.errstate(all="ignore")  # as the compiled builds: an inf or NaN is no accident here


def steps(
    T: int, rows: Array | None, live: Array | None, reverse: bool = False
) -> Iterator[tuple[int, Array | slice]]:
    """Each step, in the order of the walk, with the rows that live at it."""
    for t in range(T)[:: -1 if reverse else 1]:
        if rows is None:
            yield t, slice(None)
        else:
            yield t, rows if live is None else rows[: live[t]]


def ended(rows: Array | None, live: Array | None, t: int) -> Array | slice:
    return slice(0, 0) if rows is None or live is None else rows[live[t] :]


def fresh(state: Array, resets: Array | None, t: int, now: Array | slice) -> Array:
    """The state that step t starts from: zero where a reset says so."""
    return state if resets is None else np.where(resets[t, now, None], 0, state)


def cut(
    h: Array, c: Array, resets: Array | None, t: int, now: Array | slice
) -> tuple[Array, Array]:
    return fresh(h, resets, t, now), fresh(c, resets, t, now)


def before(
    series: Array,
    first: Array,
    rows: Array | None,
    live: Array | None,
    resets: Array | None,
    reverse: bool,
) -> Array:
    """[T, B, N]: for every step what the step before it left behind."""
    state = first.copy()
    before = np.zeros_like(series)
    for t, now in steps(len(series), rows, live, reverse):
        before[t, now] = state[now]
        state[now] = series[t, now]
    if resets is not None:
        before[resets] = 0
    return before
