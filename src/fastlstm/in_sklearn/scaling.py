"""Standardization of channels: mean 0 and standard deviation 1 over the training steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 1 << 16  # steps of which there is a float64 copy at a time


@dataclass(frozen=True)
class Scaling:
    """The standardization of each channel.

    Attributes
    ----------
    mean, scale : float64 arrays (d,)
        A constant channel has scale 1.
    """

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray, dtype: Any = np.float64) -> np.ndarray:
        """Return the standardized values (..., d); computed in float64, given in `dtype`."""
        scaled = np.empty(values.shape, dtype)
        flat, out = values.reshape(-1, len(self.mean)), scaled.reshape(-1, len(self.mean))
        for part in _chunks(len(flat)):
            out[part] = (flat[part] - self.mean) / self.scale
        return scaled

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return the values (..., d) of which `apply` gave these, float64."""
        return np.asarray(values * self.scale + self.mean, np.float64)


def measure_scaling(steps: np.ndarray, weights: np.ndarray | None = None) -> Scaling:
    """Return the standardization of steps.

    Parameters
    ----------
    steps : array (N, d)
        The steps of all sequences, one after another, without padding.
    weights : array (N,), optional
        At least 0, not all 0.

    Notes
    -----
    Two passes in float64 over distances from the first step, so that a large mean costs no digits.
    A channel is constant if its deviation is within the rounding of its mean.
    """
    first = steps[:1].astype(np.float64)
    total = float(len(steps) if weights is None else np.sum(weights, dtype=np.float64))

    def mean_of(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        sums = np.zeros(steps.shape[1])
        for part in _chunks(len(steps)):
            values = function(steps[part] - first)
            sums += (values if weights is None else values * weights[part, None]).sum(axis=0)
        return sums / total

    shift = mean_of(lambda values: values)
    deviation = np.sqrt(mean_of(lambda values: (values - shift) ** 2))
    mean = first[0] + shift
    is_constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return Scaling(mean, np.where(is_constant, 1.0, deviation))


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
