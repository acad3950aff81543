"""Windows of training, and what is held out: the tail of every series."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlstm.in_sklearn.forecast.encoding import Encoding
from fastlstm.in_sklearn.forecast.layout import Steps
from fastlstm.in_sklearn.scaling import Scaling

MOST = 4096  # windows of an epoch; of more, they begin every few steps


def training_size(length: int, fraction: float) -> int:
    """Return the number of steps of a series before its tail."""
    return max(0, length - max(1, round(fraction * length))) if fraction else length


class Data(NamedTuple):
    """Arguments of a trainer: sequences, and targets of every step."""

    x: list[np.ndarray]
    y: list[np.ndarray]
    sample_weight: list[np.ndarray]


def training_windows(
    encoding: Encoding,
    series: Sequence[Steps],
    scalings: Sequence[Scaling],
    window: int,
    dtype: Any,
) -> Data:
    """Cut windows of `window` steps, of series without their tails.

    A series that has fewer steps gives one shorter window. The last window ends with its series.
    """
    steps = [
        (encoding.inputs(y, x, scaling), scaling.apply(encoding.targets(y)))
        for (y, x), scaling in zip(series, scalings, strict=True)
    ]
    counts = [len(targets) for _, targets in steps]
    total = sum(max(count - window, 0) + 1 for count in counts)
    stride = min(-(-total // MOST), window)
    data = Data([], [], [])
    for (inputs, targets), count in zip(steps, counts, strict=True):
        inputs, targets = inputs.astype(dtype), targets.astype(dtype)
        for end in range(count, min(window, count) - 1, -stride):
            start = max(end - window, 0)
            data.x.append(inputs[start:end])
            data.y.append(targets[start:end])
    return data


def held_out_steps(
    encoding: Encoding,
    series: Sequence[Steps],
    scalings: Sequence[Scaling],
    sizes: Sequence[int],
    dtype: Any,
) -> Data:
    """Whole series, in which only steps count whose targets all lie in the tail.

    So the network comes to the tail with the state that all steps before have left.
    """
    data = Data([], [], [])
    for (y, x), scaling, size in zip(series, scalings, sizes, strict=True):
        targets = scaling.apply(encoding.targets(y))
        counts = encoding.depth + np.arange(len(targets)) >= size - 1
        data.x.append(encoding.inputs(y, x, scaling)[: len(targets)].astype(dtype))
        data.y.append(targets.astype(dtype))
        data.sample_weight.append(counts.astype(np.float64))
    return data
