"""One direction of one layer: what it computed at every step, and the gradients there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fastlstm.engine.prepared import Whole
from fastlstm.engine.reading.state import form_of, parts_of
from fastlstm.kernels.reference.core.walk import cut, live_rows, states_before

Parts: TypeAlias = tuple[np.ndarray, ...]  # of a state


@dataclass(eq=False)
class Seen:
    """A cell's walk over the steps of a batch. All arrays have the order of time."""

    name: str  # "l0_reverse"
    kind: str  # "LSTM"
    cell: Any
    parameters: Mapping[str, np.ndarray]  # by their names in the cell
    one_step: Whole  # the kernels' calls of one step
    x: np.ndarray  # [T, B, I]
    first: Parts  # the initial state, each part [B, size]
    reverse: bool
    lengths: np.ndarray | None  # [B]
    live: np.ndarray  # bool [T, B]: the steps before each row's end
    cuts: np.ndarray | None  # bool [T, B]: the steps that no state enters
    states: Parts = ()  # after every step, each part [T, B, size]
    saved: tuple[np.ndarray, ...] = ()  # each [T, B, ...]: see `SAVED` of the reference's cells

    @property
    def zoneout(self) -> list[float]:
        """For each part of the state, the fraction of the old one that inference keeps."""
        variant = getattr(self.cell, "variant", None)
        return [0.0] * len(self.first) if variant is None else list(variant.zoneout)

    def walk(self) -> None:
        """Compute `states` and `saved` as inference, step by step."""
        lead = self.live.shape
        state = [part.copy() for part in self.first]
        self.states = tuple(np.zeros((*lead, *part.shape[1:]), part.dtype) for part in state)
        none = self._keep(
            self.x.reshape(-1, self.x.shape[2])[:0], tuple(part[:0] for part in state)
        )
        self.saved = tuple(np.zeros((*lead, *a.shape[2:]), a.dtype) for a in none[0][1][0])
        for t, rows in self.steps():
            x, before = self.x[t, rows], cut([part[rows] for part in state], self.cuts, t, rows)
            new = parts_of(self.one_step.forward(x, form_of(before))[1])
            for part, after, value in zip(state, self.states, new, strict=True):
                part[rows] = after[t, rows] = value
            for array, value in zip(self.saved, self._keep(x, before)[0][1][0], strict=True):
                array[t, rows] = value[0]

    def clear(self) -> None:
        """Set to zero what is after a row's end."""
        if not self.live.all():
            for array in (*self.states[1:], *self.saved):
                array[~self.live] = 0

    def walk_back(self, dy: np.ndarray, dstate: Parts) -> tuple[np.ndarray, Parts, Parts]:
        """The gradients of x, of the initial state, and of the state after every step.

        The last are total derivatives, but for the way from a part of the state to another part of
        the same step. `dstate` is the gradient of the final state.
        """
        befores = [
            states_before(after, first, self.lengths, self.cuts, self.reverse)
            for after, first in zip(self.states, self.first, strict=True)
        ]
        dx = np.zeros(self.x.shape, self.x.dtype)
        totals = tuple(np.zeros(after.shape, after.dtype) for after in self.states)
        d_state = [part.copy() for part in dstate]
        for t, rows in reversed(list(self.steps())):
            own = [part[rows] for part in d_state]
            own[0] += dy[t, rows]
            # Zoneout of inference is a mean of the old and the new state.
            shares = [part.dtype.type(m) for part, m in zip(own, self.zoneout, strict=True)]
            d_new = tuple((1 - m) * part for part, m in zip(own, shares, strict=True))
            x, before = self.x[t, rows], tuple(part[t, rows] for part in befores)
            call = x, form_of(before), None, None, None, self._keep(x, before)
            dx[t, rows], d_before, _ = self.one_step.backward(*call, None, form_of(d_new))
            of_old = zip(parts_of(d_before), shares, own, strict=True)
            d_before = cut([new + m * part for new, m, part in of_old], self.cuts, t, rows)
            for total, part, value, d in zip(totals, d_state, own, d_before, strict=True):
                total[t, rows], part[rows] = value, d
        return dx, tuple(d_state), totals

    def steps(self) -> Iterator[tuple[int, np.ndarray]]:
        """The steps in the order of the walk, with the rows that have them."""
        T, B = self.live.shape
        return live_rows(T, B, self.lengths, self.reverse)

    def _keep(self, x: np.ndarray, state: Parts) -> Any:
        """What one step of some rows saves for `backward`."""
        return self.one_step.forward(x, form_of(state), None, None, None, None, True)[2]
