"""Which rows kernels walk, at which steps."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Walk:
    """The arguments that every kernel over a sequence shares."""

    rows: np.ndarray | None = None
    live: np.ndarray | None = None
    resets: np.ndarray | None = None
    reverse: bool = False

    def alive(self, T, B):
        """bool [T, B]: which steps of which rows are computed at all."""
        alive = np.full((T, B), self.rows is None)
        if self.rows is not None:
            for t in range(T):
                alive[t, self.rows if self.live is None else self.rows[: self.live[t]]] = True
        return alive


def walk(rng, T, B, kind):
    lengths = rng.permutation(np.linspace(0, T, B).astype(int))
    order = np.argsort(-lengths, kind="stable")
    live = (lengths > np.arange(T)[:, None]).sum(1)
    resets = rng.random((T, B)) < 0.3
    subset = order[::2].copy()
    subset_live = (lengths[subset] > np.arange(T)[:, None]).sum(1)
    return {
        "plain": Walk(),
        "reverse": Walk(reverse=True),
        "resets": Walk(resets=resets),
        "subset": Walk(rows=subset),
        "ragged": Walk(order, live),
        "ragged-subset-resets": Walk(subset, subset_live, resets),
        "ragged-resets-reverse": Walk(order, live, resets, reverse=True),
    }[kind]


KINDS = [
    "plain",
    "reverse",
    "resets",
    "subset",
    "ragged",
    "ragged-subset-resets",
    "ragged-resets-reverse",
]
