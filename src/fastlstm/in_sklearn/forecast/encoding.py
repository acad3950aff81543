"""What the network reads and gives: differences of a series, standardized."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.in_sklearn.scaling import Scaling

CRITICAL = 0.463  # of the statistic of `stationarity` at 5 % (Kwiatkowski et al. 1992, table 1)


@dataclass(frozen=True)
class Encoding:
    """The network's inputs and targets, from series (..., T, k), and values from its outputs.

    With B the shift by one step, z = Π (1 - B^lag) y. Step t reads z[t] and the exogenous values of
    the next `leads` steps. Its targets are y[t+1] to y[t+leads], each minus what it would be if z
    were 0 from t+1 on: with the lag 1 the last value, with a season's length the value one season
    before. All are standardized.

    Parameters
    ----------
    lags : tuple of int
    leads : int
        Steps that the network forecasts at once.
    exogenous : Scaling, optional
        Of the exogenous values.
    """

    lags: tuple[int, ...]
    leads: int
    exogenous: Scaling | None = None

    @property
    def depth(self) -> int:
        """Steps before a step that z needs."""
        return sum(self.lags)

    @property
    def kept(self) -> int:
        """Steps at the end of a series that a forecast needs beside the network's state.

        The exogenous values of the next `leads` steps are not known for the last `leads` steps.
        """
        return self.depth + (1 if self.exogenous is None else self.leads)

    @property
    def coefficients(self) -> dict[int, float]:
        """Those c, by j, with y[t] = z[t] + Σ c[j] y[t-j]."""
        product = {0: 1.0}  # of the factors 1 - B^lag, by the power of B
        for lag in self.lags:
            before = product
            product = dict(before)
            for power, value in before.items():
                product[power + lag] = product.get(power + lag, 0.0) - value
        return {power: -value for power, value in product.items() if power and value}

    def differences(self, y: np.ndarray) -> np.ndarray:
        """z of all steps that have one: (..., T - depth, k)."""
        for lag in self.lags:
            y = y[..., lag:, :] - y[..., : y.shape[-2] - lag, :]
        return y

    def baseline(self, y: np.ndarray, count: int = 1) -> np.ndarray:
        """The `leads` steps after each of the last `count` steps, if z is 0 there.

        Parameters
        ----------
        y : array (..., T, k)
        count : int

        Returns
        -------
        array (..., count, leads, k)
        """
        first = y.shape[-2] - count
        ahead: list[np.ndarray] = []
        for lead in range(1, self.leads + 1):
            total = np.zeros((*y.shape[:-2], count, y.shape[-1]))
            for j, c in self.coefficients.items():
                start = first + lead - j
                total += c * (ahead[lead - j - 1] if j < lead else y[..., start : start + count, :])
            ahead.append(total)
        return np.stack(ahead, axis=-2)

    def inputs(self, y: np.ndarray, x: np.ndarray | None, scaling: Scaling) -> np.ndarray:
        """The network's inputs at all steps of series that have all they need.

        Parameters
        ----------
        y : array (..., T, k)
        x : array (..., T', d), optional
            The exogenous values of the same steps, and maybe of later ones.
        scaling : Scaling
            Of the targets of these series.

        Returns
        -------
        array (..., n, k + leads * d)
            Of the steps `depth` to `depth` + n - 1.
        """
        z = self.differences(y)
        k = z.shape[-1]
        z = Scaling(scaling.mean[:k], scaling.scale[:k]).apply(z)
        if x is None or self.exogenous is None:
            return z
        first, count = self.depth + 1, min(z.shape[-2], x.shape[-2] - self.depth - self.leads)
        x = self.exogenous.apply(x)
        parts = [x[..., first + lead : first + lead + count, :] for lead in range(self.leads)]
        return np.concatenate([z[..., :count, :], *parts], axis=-1)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """What the network should give, not yet standardized: (T - depth - leads, leads * k).

        Of the steps `depth` to T - 1 - `leads` of a series.
        """
        count = max(len(y) - self.depth - self.leads, 0)
        ends = self.depth + np.arange(count)[:, None]
        after = y[ends + np.arange(1, self.leads + 1)]
        before = self.baseline(y[: self.depth + count], count)
        return np.asarray((after - before).reshape(count, -1))

    def values(self, outputs: np.ndarray, y: np.ndarray, scaling: Scaling) -> np.ndarray:
        """The next `leads` steps of series (n, T, k), from outputs (n, leads * k)."""
        deviations = scaling.undo(outputs).reshape(len(y), self.leads, -1)
        return np.asarray(deviations + self.baseline(y)[:, 0])


def stationarity(y: np.ndarray) -> float:
    """The statistic of the KPSS test of a series without a trend (Kwiatkowski et al. 1992).

    Parameters
    ----------
    y : array (T,)

    Returns
    -------
    float
        Large if the series has a trend or a level that wanders. 0 for a constant series, and for
        one of less than two steps.

    Notes
    -----
    The long-run variance has Bartlett's weights over ⌊12 (T / 100)^¼⌋ lags (Schwert 1989), but at
    most ⌊T / 5⌋ - 1. A line adds to the variance as often as there are lags: its statistic is about
    T / (10 (lags + 1)), so with more lags no line of a short series would pass `CRITICAL`.
    """
    T = len(y)
    if T < 2:
        return 0.0
    e = y - y.mean()
    lags = max(0, min(math.floor(12 * (T / 100) ** 0.25), T // 5 - 1))
    variance = e @ e + 2 * sum(
        (1 - lag / (lags + 1)) * (e[lag:] @ e[:-lag]) for lag in range(1, lags + 1)
    )
    if variance <= np.finfo(np.float64).tiny:
        return 0.0
    return float((e.cumsum() ** 2).sum() / T / variance)


def choose_lags(difference: Any, training: list[np.ndarray]) -> tuple[int, ...]:
    """The lags of differences of "auto": 1 if at least half of all columns need it, else none."""
    if difference != "auto":
        return tuple(difference)
    statistics = [stationarity(column) for y in training for column in y.T]
    return (1,) if np.mean(np.greater(statistics, CRITICAL)) >= 0.5 else ()
