"""Prediction intervals, from the errors of forecasts of what was held out."""

import math
from dataclasses import dataclass

import numpy as np

from fastlstm.in_sklearn.forecast.carried import Carried, Network

MOST = 1000  # steps of a tail from which forecasts are made, evenly spread


@dataclass(frozen=True)
class HeldOut:
    """The tail of a series, and the series before it."""

    before: Carried
    y: np.ndarray
    x: np.ndarray | None

    def errors(self, network: Network, horizon: int) -> list[np.ndarray]:
        """Absolute errors of forecasts of the tail, from every step of it, or of `MOST` steps.

        Returns
        -------
        list of arrays (n, k), one for each step ahead
            In units of the deviation by which the series is standardized.
        """
        leads, n, k = network.encoding.leads, *self.y.shape
        width = max(horizon, leads)
        # The exogenous values of all steps that a direct network forecasts have to be known.
        count = n if self.x is None else max(n + 1 - leads, 0)
        origins = np.arange(0, count, max(1, -(-count // MOST)))
        if not count:
            return [np.empty((0, k))] * horizon
        past, pasts, done = self.before, [], 0
        for origin in origins:
            x = None if self.x is None else self.x[done:origin]
            past = network.advance(past, self.y[done:origin], x)
            pasts.append(past)
            done = origin
        future = None
        if self.x is not None:
            x = np.concatenate([self.x, np.zeros((width, self.x.shape[1]))])
            future = x[origins[:, None] + np.arange(width)]
        found = network.forecast(pasts, future, horizon)
        errors = []
        for lead in range(horizon):
            known = origins + lead < n
            error = self.y[origins[known] + lead] - found[known, lead]
            errors.append(np.abs(error) / self.before.scaling.scale[:k])
        return errors


def radius(errors: np.ndarray, coverage: float, lead: int) -> np.ndarray:
    """The half width of an interval, for each column.

    Split conformal prediction: of n absolute errors, the ⌈(n + 1) · coverage⌉-th smallest (Lei,
    G'Sell, Rinaldo, Tibshirani & Wasserman 2018, algorithm 2).

    Parameters
    ----------
    errors : array (n, k)
    coverage : float
    lead : int
        From 1, for the message.

    Raises
    ------
    ValueError
        There are too few errors for such a coverage.
    """
    n = len(errors)
    rank = rank_of(n, coverage)
    if rank > n:
        needed = math.ceil((coverage - 1e-9) / (1 - coverage))  # as `rank_of` rounds
        raise ValueError(
            f"coverage: expected at least {needed} held-out errors for {coverage:g}, got {n} at "
            f"{lead} {'step' if lead == 1 else 'steps'} ahead; a shorter horizon, a lower coverage "
            "or a larger validation_fraction does"
        )
    return np.asarray(np.sort(errors, axis=0)[rank - 1])


def rank_of(n: int, coverage: float) -> int:
    """⌈(n + 1) · coverage⌉, where rounding of the product counts for nothing."""
    return math.ceil((n + 1) * coverage - 1e-9)
