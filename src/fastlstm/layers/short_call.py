"""The short way to a kernel, for calls whose arrays need nothing done."""

from collections.abc import Callable
from typing import Any

import numpy as np

WHOLE = None, None, None, False  # rows, live, resets, reverse: every step of every row


def short_call(
    kernel: Callable[..., None], inputs: int, H: int, dtype: np.dtype, one_step: bool
) -> Callable[[int, Any, Any], tuple[np.ndarray, np.ndarray] | None]:
    """f(most, x, h) -> (y, h) of a layer whose state is h alone; None where it cannot take them.

    x is [T, B, inputs] and h [1, B, H], or with `one_step` [B, inputs] and [B, H]. `most` is how
    many pairs of step and row may be computed.
    """

    def call(most: int, x: Any, h: Any) -> tuple[np.ndarray, np.ndarray] | None:
        if type(x) is not np.ndarray or type(h) is not np.ndarray:
            return None
        if x.dtype is not dtype or h.dtype is not dtype or x.ndim != 3 - one_step:
            return None
        if one_step:
            x, h = x[None], h[None]
        T, B, features = x.shape
        if features != inputs or h.shape != (1, B, H) or not 0 < T * B <= most:
            return None
        y, h_n = np.empty((T, B, H), dtype), np.empty((1, B, H), dtype)
        try:
            kernel(x, (h[0],), y, (h_n[0],), WHOLE, {})
        except ValueError:
            return None  # not contiguous
        return (y[0], h_n[0]) if one_step else (y, h_n)

    return call
