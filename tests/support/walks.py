"""Which rows kernels walk, at which steps."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Walk:
    lengths: np.ndarray | None = None  # [B]
    resets: np.ndarray | None = None  # bool [T, B]
    reverse: bool = False

    def live(self, T, B):
        """bool [T, B]: which steps of which rows are computed at all."""
        if self.lengths is None:
            return np.ones((T, B), np.bool_)
        return self.lengths > np.arange(T)[:, None]


def walk(rng, T, B, kind):
    """One of `KINDS`. Ragged rows have all lengths from none to T, in no order."""
    lengths = rng.permutation(np.linspace(0, T, B).astype(np.intp))
    resets = rng.random((T, B)) < 0.3
    return {
        "plain": Walk(),
        "reverse": Walk(reverse=True),
        "resets": Walk(resets=resets),
        "ragged": Walk(lengths),
        "ragged-resets": Walk(lengths, resets),
        "ragged-resets-reverse": Walk(lengths, resets, reverse=True),
    }[kind]


KINDS = ["plain", "reverse", "resets", "ragged", "ragged-resets", "ragged-resets-reverse"]
