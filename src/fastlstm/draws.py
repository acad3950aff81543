"""What training draws: random numbers of a seed, a step and a row of the batch.

Within `drawing`, the layers' own generators rest. Every row of every draw has a stream of its own,
so its numbers do not depend on the other rows of the batch, on how many steps these have, or on
which rows of the batch a process computes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np

LAYERS, ORDER, SPLIT = range(3)  # what numbers are for: each has a key of its own


def philox(seed: int, purpose: int, *counter: int) -> "np.random.Generator":
    """Return the generator of up to three numbers below 2**64, such as an epoch."""
    full = np.zeros(4, np.uint64)  # the first counts what the generator gives
    full[1 : 1 + len(counter)] = counter
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=full))


@lru_cache
def _key(seed: int, purpose: int) -> np.ndarray:
    return np.random.SeedSequence((seed, purpose)).generate_state(2, np.uint64)


def bound_of(chance: float, uniform: Any) -> Any:
    """The whole number below which 16 random bits are, as a number, with probability `chance`.

    `chance` is rounded to 16 bits up or down by a number drawn from [0, 1), so that the probability
    is exact.
    """
    return np.floor(chance * 2**16 + uniform).astype(np.uint32)


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

    def generator(self) -> "np.random.Generator":
        """Return the generator of the next draw as a whole, for cells that know no rows."""
        self.count += 1
        return philox(self.seed, LAYERS, self.first_row, self.count, self.step)

    def by_row(self, shape: tuple[int, ...], chance: float, axis: int | None) -> np.ndarray:
        """Return bools that are True with probability `chance`, from 16 random bits each.

        `axis` is that of rows; None for a layer that does not know it.
        """
        valid = self.valid
        if axis is None and valid is not None and shape[0] == np.count_nonzero(valid):
            full = self.by_row(valid.shape + shape[1:], chance, int(not self.batch_first))
            return np.asarray(full[valid])
        if axis is None:
            axis = int(len(shape) > 2 and not self.batch_first)
        of_row = shape[:axis] + shape[axis + 1 :]
        size = math.prod(of_row)
        rows = shape[axis]
        words = self._words(rows, 1 + -(-size // 4))
        bounds = bound_of(chance, (words[:, :1] >> np.uint64(11)) * 2.0**-53)
        flags = words[:, 1:].view(np.uint16)[:, :size] < bounds
        return np.ascontiguousarray(np.moveaxis(flags.reshape(rows, *of_row), 0, axis))

    def _words(self, rows: int, count: int) -> np.ndarray:
        """The random bits of the next draw, uint64 [rows, count]."""
        self.count += 1
        bits: Any = philox(self.seed, LAYERS).bit_generator
        new = bits.state  # with nothing drawn
        words = np.empty((rows, count), np.uint64)
        for row in range(rows):
            new["state"]["counter"][1:] = self.first_row + row, self.count, self.step
            bits.state = new
            words[row] = bits.random_raw(count)
        return words


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
