"""Sums over all rows of all steps: the gradients of parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm.kernels.arguments import Array
from fastlstm.kernels.reference.core.cell import Parts, Term

DEPTH = 256  # rows that are summed in the arrays' dtype before the sums are added in float64


class Sum:
    """The sum of a parameter's terms: see `PythonCell.step_backward`.

    Some products of NumPy add all rows one after the other: in float32, 10⁶ of them lose three
    digits. So the sums restart after DEPTH rows. Terms may come in several calls of `add`; rows
    that are fewer than DEPTH wait for the next, so the bits do not depend on the calls.
    """

    def __init__(self) -> None:
        self._totals: list[Array] = []  # float64, for each block of the parameter's rows
        self._waiting: list[Parts] = []  # for each block: rows that were not added yet

    def add(self, terms: Sequence[Term], ends: bool) -> None:
        """Add terms; with `ends`, rows that wait too."""
        blocks = [_joined(block) for block in zip(*map(_blocks_of, terms), strict=True)]
        if self._waiting:
            blocks = [_joined(pair) for pair in zip(self._waiting, blocks, strict=True)]
        else:
            self._totals = [np.zeros([array.shape[1] for array in block]) for block in blocks]
        for total, block in zip(self._totals, blocks, strict=True):
            rows = len(block[0])
            for start in range(0, rows if ends else rows - DEPTH + 1, DEPTH):
                total += _sum_of(*(array[start : start + DEPTH] for array in block))
        self._waiting = [
            tuple(array[len(array) // DEPTH * DEPTH :].copy() for array in block)
            for block in blocks
        ]

    def total(self) -> Array:
        """The gradient, after the last `add`."""
        total: Array = np.concatenate(self._totals).astype(self._waiting[0][0].dtype)
        return total


def _blocks_of(term: Term) -> Sequence[Parts]:
    if isinstance(term, list):
        return term
    return [term if isinstance(term, tuple) else (term,)]


def _joined(blocks: Sequence[Parts]) -> Parts:
    return tuple(map(np.concatenate, zip(*blocks, strict=True)))


def _sum_of(left: Array, right: Array | None = None) -> Any:
    """[M, N] Σ left[k]ᵀ · right[k], or [M] Σ left[k]."""
    return left.sum(axis=0, dtype=np.float64) if right is None else left.T @ right
