"""How a layer's work is dealt to threads."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm.checks import LARGEST
from fastlstm.layers.inputs import Plan

if TYPE_CHECKING:
    from fastlstm.layers.recurrent import Recurrent

# Multiply-adds of one layer below which one thread does it. A second one comes 20 to 130 µs after
# its call, which takes 8 to 25 itself. One thread's time over that of two on a virtual machine: 0.8
# to 1.1 at (200, 1, 64, 64), 7 million; 1.2 to 1.7 at (100, 1, 128, 128), 13 million.
PARALLEL_WORK = 12_000_000
# Up to so many rows for each thread, threads split the units of every step and not the rows: 1.8 in
# place of 1.6 at (100, 32, 64, 128), and at 64 rows no better.
FEW_ROWS = 20
# Then they wait for one another once a step, which has to be worth it: 0.9 at (512, 1, 1, 40), 7
# thousand multiply-adds a step; 1.3 at (30, 4, 32, 64), 98 thousand.
STEP_WORK = 60_000
LANES = 16  # of the widest registers; a thread that splits units gets at least as many


# most_alone, least_rows, most_rows, threads: see kernels/lstm_call.pxi
Sharing: TypeAlias = tuple[int, int, int, int]


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
    B = x.shape[1]
    busy = worthwhile_apart(stack, threads, x, layer)
    most_rows = few_rows(stack, threads, layer) if stack._directions == 1 else 0
    if most_rows >= B:
        worth_waiting = B * _weights(stack, x.shape[2], layer) >= STEP_WORK
        return 1, (busy,) if busy > 1 and worth_waiting else ()
    return busy, ()


def few_rows(stack: "Recurrent", threads: int, layer: int = 0) -> int:
    """Up to how many rows `threads` threads had better split the units of."""
    splits = stack._splits_units and stack._widths[layer] >= threads * LANES
    return threads * FEW_ROWS - 1 if splits else 0


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


def sharing(stack: "Recurrent", threads: int) -> Sharing:
    """For calls of a stack of one layer on up to `threads` threads."""
    if threads == 1:
        return LARGEST, 0, 0, 1
    weights = _weights(stack, stack.input_size, 0)
    most_alone, least_rows = PARALLEL_WORK // weights, -(-STEP_WORK // weights)
    return most_alone, least_rows, few_rows(stack, threads), threads


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
