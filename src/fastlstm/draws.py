"""What training draws: random numbers of a seed, a step and a row of the batch.

Within `drawing`, the layers' own generators rest. Every row of every draw has a stream of its own,
so its numbers do not depend on the other rows of the batch, on how many steps these have, or on
which rows of the batch a process computes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

LAYERS, ORDER, SPLIT = range(3)  # what numbers are for: each has a key of its own


def philox(seed: int, purpose: int, *counter: int) -> "np.random.Generator":
    """Return the generator of up to three numbers below 2**64, such as an epoch."""
    key = np.random.SeedSequence((seed, purpose)).generate_state(2, np.uint64)
    full = np.zeros(4, np.uint64)  # the first counts what the generator gives
    full[1 : 1 + len(counter)] = counter
    return np.random.Generator(np.random.Philox(key=key, counter=full))


class Draws:
    """What is drawn in one step of training.

    Parameters
    ----------
    seed, step : int
    batch_first : bool
        Whether arrays of steps are (B, T, ...) in the model.
    first_row : int
        The place in the batch as a whole of the first row that this process computes.
    """

    def __init__(self, seed: int, step: int, batch_first: bool = False, first_row: int = 0):
        self.seed, self.step, self.first_row = seed, step, first_row
        self.batch_first = batch_first
        self.count = 0  # draws so far
        self.valid: np.ndarray | None = None  # see `packing`
        self._generator: np.random.Generator | None = None

    def generator(self) -> "np.random.Generator":
        """Return the generator of the next draw as a whole, for cells that know no rows."""
        self.count += 1
        return philox(self.seed, LAYERS, 0, self.count, self.step)

    def by_row(
        self,
        draw: Callable[["np.random.Generator", tuple[int, ...]], np.ndarray],
        shape: tuple[int, ...],
        axis: int | None,
    ) -> np.ndarray:
        """Return an array of `shape`, each row of which `draw` fills by itself.

        `axis` is that of rows; None for a layer that does not know it.
        """
        valid = self.valid
        if axis is None and valid is not None and shape[0] == np.count_nonzero(valid):
            self.valid = None
            full = self.by_row(draw, valid.shape + shape[1:], int(not self.batch_first))
            self.valid = valid
            return np.asarray(full[valid])
        if axis is None:
            axis = int(len(shape) > 2 and not self.batch_first)
        self.count += 1
        of_row = shape[:axis] + shape[axis + 1 :]
        drawn = [draw(self._of_row(row), of_row) for row in range(shape[axis])]
        return np.stack(drawn, axis) if drawn else np.empty(shape, np.bool_)

    def _of_row(self, row: int) -> "np.random.Generator":
        if self._generator is None:
            self._generator = philox(self.seed, LAYERS)
        bits: Any = self._generator.bit_generator
        state = bits.state
        state["state"]["counter"][:] = 0, self.first_row + row, self.count, self.step
        bits.state = state | {"buffer_pos": 4, "has_uint32": 0}  # an empty buffer
        return self._generator


_CURRENT: ContextVar[Draws | None] = ContextVar("draws", default=None)


def current() -> Draws | None:
    """Return the draws of the step of training that this thread computes, if any."""
    return _CURRENT.get()


@contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Within the block, layers draw from `draws` in place of their own generators."""
    token = _CURRENT.set(draws)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def packing(valid: np.ndarray) -> Iterator[None]:
    """Within the block, arrays of the steps where `valid` is True, one after another, are drawn.

    `valid` has the axes of steps and rows, in the model's order.
    """
    draws = _CURRENT.get()
    if draws is None or valid.ndim < 2:
        yield
        return
    before, draws.valid = draws.valid, valid
    try:
        yield
    finally:
        draws.valid = before
