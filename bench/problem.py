"""The arrays of one case, the same for every engine."""

from dataclasses import dataclass, replace

import numpy as np

import fastlstm as fl
from bench.cases import Case
from bench.cells import CELLS

SHORTEST = 10  # steps of a ragged batch's shortest row, where T allows


@dataclass(frozen=True)
class Problem:
    """A model, and what goes in at both ends.

    Attributes
    ----------
    case : Case
    layer : fl.LSTM, fl.GRU or fl.RNN
        Its parameters are everyone's.
    x : array [T, B, I]
    state : arrays [layers * directions, B, P] and, for an LSTM, [layers * directions, B, H]
        h and c: not zero, and different, so that an engine that swaps them is found. None where no
        engine is given a state, and each begins with zeros.
    dy : array [T, B, directions * P]
        The gradient of the output; zero past a row's end.
    lengths : array [B] of int64, or None
    resets : array [T, B] of bool, or None
    """

    case: Case
    layer: fl.LSTM | fl.GRU | fl.RNN
    x: np.ndarray
    state: tuple[np.ndarray, ...] | None
    dy: np.ndarray
    lengths: np.ndarray | None
    resets: np.ndarray | None

    @property
    def live(self) -> int:
        """Pairs of step and row that are computed."""
        return self.case.T * self.case.B if self.lengths is None else int(self.lengths.sum())

    def first(self, T: int) -> "Problem":
        """The same up to step T; not for ragged batches."""
        resets = None if self.resets is None else self.resets[:T]
        case = replace(self.case, T=T)
        return replace(self, case=case, x=self.x[:T], dy=self.dy[:T], resets=resets)


def make_problem(case: Case, *, with_state: bool = True) -> Problem:
    """Random arrays for `case`; the same ones every time."""
    rng = np.random.default_rng(0)
    T, B = case.T, case.B
    directions = 2 if case.bidirectional else 1
    sizes = {"h": case.proj_size or case.H, "c": case.H}

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(case.dtype)

    layer = getattr(fl, case.cell)(
        case.I,
        case.H,
        case.layers,
        **case.options,
        **case.variant_options,
        dtype=case.dtype,
        rng=rng,
    )
    lengths = _lengths(case, rng) if case.lengths else None
    dy = normal(T, B, directions * sizes["h"])
    if lengths is not None:
        dy[np.arange(T)[:, None] >= lengths] = 0
    x = normal(T, B, case.I)
    state = tuple(
        0.5 * normal(case.layers * directions, B, sizes[part]) for part in CELLS[case.cell].state
    )
    return Problem(
        case,
        layer,
        x,
        state if with_state else None,
        dy,
        lengths,
        rng.random((T, B)) < case.resets if case.resets else None,
    )


def _lengths(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Lengths [B] up to T, one of them T; geometric ones have a mean of about T / 4."""
    T, B = case.T, case.B
    if case.lengths == "uniform":
        lengths = rng.integers(min(SHORTEST, T), T, B, endpoint=True)
    else:
        lengths = np.minimum(rng.geometric(min(1.0, 4 / T), B), T)
    lengths[B // 2] = T
    return lengths
