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


VARIANTS = {
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "peepholes, coupled": {"peepholes": True, "coupled": True, "proj_size": 2},
    "layer norm": {"layer_norm": True},
    "layer norm, no bias": {"layer_norm": True, "bias": False},
    "layer norm, projected": {"layer_norm": True, "proj_size": 3, "peepholes": True},
    "clip": {"clip": 0.7, "peepholes": True},
    "zoneout": {"zoneout": (0.3, 0.45)},
    "zoneout of c, projected": {"zoneout": (0.0, 0.45), "proj_size": 2},
    "zoneout of h, projected": {"zoneout": (0.45, 0.0), "proj_size": 2, "num_layers": 2},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "hard sigmoid": {"activations": ("hard_sigmoid", "softsign", ("scaled_tanh", 1.5, 0.5))},
    "leaky": {"activations": (("affine", 0.3, 0.4), ("leaky_relu", -0.2), "softplus")},
    "relu": {"activations": ("sigmoid", ("thresholded_relu", 0.1), "relu")},
    "elu": {"activations": (("elu", 0.5), "relu", "elu"), "peepholes": True},
    "learned state": {"learn_initial_state": True, "num_layers": 2, "proj_size": 2},
    "widths": {"H": [4, 6, 3], "bidirectional": True},
    "everything": {
        "H": [5, 4],
        "peepholes": True,
        "coupled": True,
        "layer_norm": True,
        "clip": 1.3,
        "zoneout": (0.3, 0.45),
        "recurrent_dropout": 0.4,
        "bidirectional": True,
        "proj_size": 3,
        "learn_initial_state": True,
        "activations": ("sigmoid", "softsign", "tanh"),
    },
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
    parameters = layer.state_dict()
    for name, array in parameters.items():
        if "_ln_" in name or name.startswith("initial"):  # which begin as ones and zeros
            array += rng.uniform(-0.5, 0.5, array.shape).astype(array.dtype)
    layer.load_state_dict(parameters)
    extra = {}
    if lengths:  # the longest neither first nor last, one of zero
        extra["lengths"] = rng.permutation(np.linspace(0, T, B).astype(int))
    if resets:
        extra["resets"] = rng.random((T, B)) < 0.3
    x = rng.standard_normal((T, B, I)).astype(layer.dtype)
    return Example(layer, x, random_state(rng, layer, B), extra)


def random_state(rng, layer, B):
    directions = 2 if layer.bidirectional else 1

    def part(scale, *sizes):
        if len(set(sizes)) == 1:
            shape = (layer.num_layers * directions, B, sizes[0])
            return rng.uniform(-scale, scale, shape).astype(layer.dtype)
        shapes = ((directions, B, size) for size in sizes)
        return [rng.uniform(-scale, scale, shape).astype(layer.dtype) for shape in shapes]

    widths = layer.hidden_size if isinstance(layer.hidden_size, list) else [layer.hidden_size]
    if not isinstance(layer, fl.LSTM):
        return part(1, *widths)
    return part(1, *(layer.proj_size or width for width in widths)), part(2, *widths)
