"""Random layers with everything they take."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastlstm as fl

OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "three layers": {"num_layers": 3},
    "both directions": {"bidirectional": True},
    "projected": {"proj_size": 2},
    "all": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
}


@dataclass
class Example:
    lstm: fl.LSTM
    x: np.ndarray  # [T, B, I]
    state: tuple[np.ndarray, np.ndarray]  # [layers * directions, B, P or H]
    options: dict[str, Any] = field(default_factory=dict)  # lengths [B], resets [T, B]

    def __call__(self, **options):
        return self.lstm(self.x, self.state, **self.options, **options)

    def forward(self, **options):
        return self.lstm.forward(self.x, self.state, **self.options, **options)


def example(rng, T=7, B=5, I=3, H=4, lengths=False, resets=False, **options) -> Example:
    """An LSTM, an input, and a state of which no two sizes and no two values are equal."""
    lstm = fl.LSTM(I, H, rng=rng, **options)
    P = options.get("proj_size") or H
    rows = lstm.num_layers * (2 if lstm.bidirectional else 1)
    extra = {}
    if lengths:  # the longest neither first nor last, one of zero
        extra["lengths"] = rng.permutation(np.linspace(0, T, B).astype(int))
    if resets:
        extra["resets"] = rng.random((T, B)) < 0.3
    return Example(
        lstm,
        rng.standard_normal((T, B, I)).astype(lstm.dtype),
        (
            rng.uniform(-1, 1, (rows, B, P)).astype(lstm.dtype),
            rng.uniform(-2, 2, (rows, B, H)).astype(lstm.dtype),
        ),
        extra,
    )
