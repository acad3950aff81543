"""Dropout, and the random bools of dropout and zoneout."""

import math
from typing import NamedTuple

import numpy as np

from fastlstm.checks import quiet
from fastlstm.draws import bound_of, current

CHUNK = 2**17  # flags drawn at a time, so that their random bits stay in the second cache


class Dropped(NamedTuple):
    """The mask and the factor of one inverted dropout."""

    kept: np.ndarray  # bool: False where a number is dropped
    scale: float  # factor of the numbers that are kept

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Return `array` scaled, with zeros where dropped, even in place of inf or NaN."""
        result = np.zeros(array.shape, array.dtype)
        with quiet():
            np.multiply(array, array.dtype.type(self.scale), out=result, where=self.kept)
        return result

    def factors(self, dtype: np.dtype) -> np.ndarray:
        """Return the factors of all numbers: 0 where dropped, else `scale`."""
        return np.asarray(self.kept * dtype.type(self.scale))


def draw_dropout(
    rng: "np.random.Generator", shape: tuple[int, ...], p: float, axis: int | None = None
) -> Dropped:
    """Drop each number with probability p and scale the others by 1 / (1 - p).

    Srivastava et al. 2014, JMLR 15. The scaling is done in training ("inverted"), so inference
    needs none. `axis` is that of rows, as in `draw`.
    """
    return Dropped(~draw(rng, shape, p, axis), 1 / (1 - p) if p < 1 else 0.0)


def draw(
    rng: "np.random.Generator", shape: tuple[int, ...], chance: float, axis: int | None = None
) -> np.ndarray:
    """Return bools that are True with probability `chance`, from 16 random bits each.

    While a Trainer trains, each row along `axis` is drawn by itself: see `fastlstm.draws`.
    """
    draws = current()
    if draws is not None:
        return draws.by_row(shape, chance, axis)
    size = math.prod(shape)
    flags = np.empty(size, np.bool_)
    bound = int(bound_of(chance, rng.random()))
    for start in range(0, size, CHUNK):
        part = flags[start : start + CHUNK]
        words = rng.integers(2**64 - 1, size=-(-len(part) // 4), dtype=np.uint64, endpoint=True)
        np.less(words.view(np.uint16)[: len(part)], bound, out=part)
    return flags.reshape(shape)
