"""A series up to now, as the network's state and the last steps; and how it goes on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.in_sklearn.forecast.encoding import Encoding
from fastlstm.in_sklearn.scaling import Scaling
from fastlstm.layers.sequential import Sequential


@dataclass(frozen=True)
class Carried:
    """What a forecast needs of a series that was seen.

    Attributes
    ----------
    y, x : arrays (encoding.kept, k) and (encoding.kept, d), or None
        The last steps.
    state : tuple
        The network's after the steps before; those with all inputs known, but the last step.
    scaling : Scaling
        Of the targets.
    """

    y: np.ndarray
    x: np.ndarray | None
    state: Any
    scaling: Scaling


class Network:
    """A model with the encoding of what it reads and gives."""

    def __init__(self, model: Sequential, encoding: Encoding, dtype: np.dtype, threads: int | None):
        self.model, self.encoding, self.dtype = model, encoding, dtype
        self.threads = threads

    def begin(self, y: np.ndarray, x: np.ndarray | None, scaling: Scaling) -> Carried:
        """Read a series of at least `encoding.kept` steps."""
        n = self.encoding.kept
        start = Carried(y[:n], x if x is None else x[:n], self.model.zero_state(1), scaling)
        return self.advance(start, y[n:], x if x is None else x[n:])

    def advance(self, before: Carried, y: np.ndarray, x: np.ndarray | None) -> Carried:
        """Read the next steps of a series; the network computes one step for each."""
        if not len(y):
            return before
        n, scaling = self.encoding.kept, before.scaling
        y = np.concatenate([before.y, y])
        x = None if x is None or before.x is None else np.concatenate([before.x, x])
        inputs = self.encoding.inputs(y, x, scaling)[: len(y) - n]
        _, state = self._read(inputs[None], before.state)
        return Carried(y[-n:].copy(), None if x is None else x[-n:].copy(), state, scaling)

    def forecast(self, pasts: list[Carried], x: np.ndarray | None, horizon: int) -> np.ndarray:
        """Return the next steps of series side by side: (n, horizon, k).

        Parameters
        ----------
        pasts : list of Carried
            Of one scaling.
        x : array (n, at least horizon and leads, d), optional
            The exogenous values of the next steps.
        horizon : int
        """
        encoding, scaling = self.encoding, pasts[0].scaling
        n = encoding.kept
        y = np.stack([past.y for past in pasts])
        if x is not None:
            before = np.stack([past.x for past in pasts if past.x is not None])
            x = np.concatenate([before, x], axis=1)
        state = _joined([past.state for past in pasts])
        parts: list[np.ndarray] = []
        for first in range(0, horizon, encoding.leads):
            seen = None if x is None else x[:, first : first + n + encoding.leads]
            outputs, state = self._read(encoding.inputs(y, seen, scaling), state)
            parts.append(encoding.values(outputs[:, -1], y, scaling))
            y = np.concatenate([y, parts[-1]], axis=1)[:, -n:]
        return np.asarray(np.concatenate(parts, axis=1)[:, :horizon])

    def _read(self, inputs: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        outputs, state = self.model(inputs.astype(self.dtype), state, threads=self.threads)
        return outputs, state


def _joined(states: list[Any]) -> Any:
    """States of one row each as the state of all rows."""
    if isinstance(states[0], tuple):
        return tuple(map(_joined, map(list, zip(*states, strict=True))))
    return np.concatenate(states, axis=-2)
