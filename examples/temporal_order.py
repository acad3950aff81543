"""Temporal order: which of X and Y came first, and which next (Hochreiter & Schmidhuber 1997, 6a).

Two of 100 to 110 symbols are X or Y, the others noise. The task is solved when the last 2,000
sequences were all classified, with probabilities within 0.3 of the truth. An LSTM does that in
fewer sequences than the paper's; a plain RNN of equal size does not.
"""

import sys

import numpy as np
from adding import solve

import fastlstm as fl


def make_batch(rng, T, rows=4):
    """One-hot symbols of T to 1.1 T steps, and the class of each row."""
    lengths, row = rng.integers(T, T + T // 10 + 1, rows), np.arange(rows)
    symbols = rng.integers(4, size=(rows, lengths.max()))  # a, b, c or d
    kinds = rng.integers(2, size=(2, rows))  # X or Y, twice
    for kind, earliest in zip(kinds, (T // 10, T // 2), strict=True):
        symbols[row, rng.integers(earliest, earliest + T // 10 + 1, rows)] = 4 + kind
    symbols[:, 0], symbols[row, lengths - 1] = 6, 7  # where it begins and where it ends
    return fl.training.Batch(np.eye(8)[symbols], 2 * kinds[0] + kinds[1], lengths)


def right(logits, labels):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    return (abs(probabilities - np.eye(4)[labels]) < 0.3).all(axis=1)


ORDER = {"sizes": (8, 4), "loss": "cross_entropy", "make_batch": make_batch, "right": right}

if __name__ == "__main__":
    quick = "--quick" in sys.argv
    T, budget, cells = (20, 10_000, [fl.LSTM]) if quick else (100, 31_390, [fl.LSTM, fl.RNN])
    for cell in cells:
        took = solve(cell, T, budget, 0, **ORDER)
        print(f"T = {T}: {cell.__name__} needs {took or f'more than {budget}'} sequences")
        assert (took is not None) == (cell is fl.LSTM)
