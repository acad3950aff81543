"""How a layer's work is dealt to threads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm.layers.inputs import Plan

if TYPE_CHECKING:
    from fastlstm.layers.recurrent import Recurrent

# Multiply-adds of one layer below which one thread does it. A second one pays from 16 million on
# while it is awake, but to wake it and to wait for it takes a good part of a millisecond where the
# machine is a virtual one: one thread's time over that of two was seen between 0.6 and 1.3 at
# (100, 16, 32, 64), 39 million, and from 1.45 up at (100, 32, 64, 128), 315 million.
PARALLEL_WORK = 100_000_000
# Where a thread would get fewer rows than this, threads split the units of every step instead, and
# whoever wakes late joins late, so that less work is enough. (100, 1, 128, 128), 13 million: 0.82;
# (50, 1, 64, 256), 16 million: 1.35; (200, 1, 128, 128), 26 million: 1.12.
FEW_ROWS = 8
TEAM_WORK = 15_000_000


class Share(NamedTuple):
    """What one kernel call does of a layer."""

    direction: int
    suffix: str  # of the parameters' names
    at: int  # the layer and direction's place in the state
    columns: slice  # of the layer's output
    walk: tuple[Any, Any, Any, bool]  # rows, live, resets, reverse: see kernels.reference


def worthwhile(
    stack: "Recurrent", threads: int, x: np.ndarray, layer: int
) -> tuple[int, tuple[int, ...]]:
    """How many of `threads` one layer over x keeps busy apart; and how many each kernel call."""
    if threads == 1:
        return 1, ()
    if stack._directions == 1 and x.shape[1] <= few_rows(stack, threads):
        return 1, (threads,) if _work(stack, x, layer) > TEAM_WORK else ()
    return worthwhile_apart(stack, threads, x, layer), ()


def few_rows(stack: "Recurrent", threads: int) -> int:
    """Up to how many rows `threads` threads had better split the units of."""
    return threads * FEW_ROWS - 1 if stack._splits_units else 0


def worthwhile_apart(stack: "Recurrent", threads: int, x: np.ndarray, layer: int) -> int:
    """How many of `threads` are kept busy by pieces of their own, of one layer over x."""
    return threads if _work(stack, x, layer) > PARALLEL_WORK else 1


def _work(stack: "Recurrent", x: np.ndarray, layer: int) -> int:
    """Multiply-adds of one layer over x [T, B, I]."""
    T, B, features = x.shape
    return int(T * B * stack._directions * _weights(stack, features, layer))


def _weights(stack: "Recurrent", features: int, layer: int) -> int:
    """Of one direction of a layer: the multiply-adds of a pair of step and row."""
    return stack.GATES * stack._widths[layer] * (features + stack._sizes(layer)[0])


def most_alone(stack: "Recurrent") -> int:
    """Pairs of step and row that are too few for a second thread, in a stack of one layer."""
    return TEAM_WORK // _weights(stack, stack.input_size, 0)


def shares(stack: "Recurrent", plan: Plan, layer: int, threads: int) -> Iterator[Share]:
    """One layer's work in pieces: directions first, then rows of the batch."""
    P = stack._sizes(layer)[0]
    parts = -(-threads // stack._directions)
    for direction in range(stack._directions):
        for rows, live in plan.rows.split(parts, plan.x.shape[1]):
            yield Share(
                direction,
                stack._suffix(layer, direction),
                layer * stack._directions + direction,
                slice(direction * P, (direction + 1) * P),
                (rows, live, plan.resets, stack._is_reverse(direction)),
            )
