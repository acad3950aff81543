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

# Layers whose state is h alone.
GRU_AND_RNN = {
    "GRU": {"kind": "GRU"},
    "GRU, reset first": {"kind": "GRU", "linear_before_reset": False},
    "GRU, clipped": {"kind": "GRU", "clip": 0.4},
    "GRU, other activations": {
        "kind": "GRU",
        "activations": (("hard_sigmoid", 0.3, 0.4), ("leaky_relu", -0.2)),
    },
    "GRU, all": {
        "kind": "GRU",
        "linear_before_reset": False,
        "activations": ("softsign", ("scaled_tanh", 1.2, 0.8)),
        "clip": 0.9,
    },
    "RNN": {"kind": "RNN"},
    "RNN, relu": {"kind": "RNN", "nonlinearity": "relu"},
    "RNN, clipped": {"kind": "RNN", "nonlinearity": "softplus", "clip": 0.5},
}


@dataclass
class Example:
    layer: Any
    x: np.ndarray  # [T, B, I]
    state: Any  # (h, c) or h, each [layers * directions, B, P or H]
    options: dict[str, Any] = field(default_factory=dict)  # lengths [B], resets [T, B]

    @property
    def lstm(self):
        return self.layer

    @lstm.setter
    def lstm(self, layer):
        self.layer = layer

    def __call__(self, **options):
        return self.layer(self.x, self.state, **self.options, **options)

    def forward(self, **options):
        return self.layer.forward(self.x, self.state, **self.options, **options)


def parts(state):
    """The arrays of a state: h, and c where there is one."""
    return state if isinstance(state, tuple) else (state,)


def each(function, state):
    """`function` of every part of a state, in the state's form."""
    return tuple(map(function, state)) if isinstance(state, tuple) else function(state)


def example(
    rng, T=7, B=5, I=3, H=4, lengths=False, resets=False, kind="LSTM", **options
) -> Example:
    """A layer, an input, and a state of which no two sizes and no two values are equal."""
    layer = getattr(fl, kind)(I, H, rng=rng, **options)
    P = options.get("proj_size") or H
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    extra = {}
    if lengths:  # the longest neither first nor last, one of zero
        extra["lengths"] = rng.permutation(np.linspace(0, T, B).astype(int))
    if resets:
        extra["resets"] = rng.random((T, B)) < 0.3
    h = rng.uniform(-1, 1, (rows, B, P)).astype(layer.dtype)
    c = rng.uniform(-2, 2, (rows, B, H)).astype(layer.dtype)
    x = rng.standard_normal((T, B, I)).astype(layer.dtype)
    return Example(layer, x, (h, c) if kind == "LSTM" else h, extra)
