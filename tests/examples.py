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
    "clip": {"clip": 0.75, "peepholes": True},
    "zoneout": {"zoneout": (0.25, 0.5)},
    "zoneout of c, projected": {"zoneout": (0.0, 0.5), "proj_size": 2},
    "zoneout of h, projected": {"zoneout": (0.5, 0.0), "proj_size": 2, "num_layers": 2},
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
        "clip": 1.5,
        "zoneout": (0.25, 0.5),
        "recurrent_dropout": 0.4,
        "bidirectional": True,
        "proj_size": 3,
        "learn_initial_state": True,
        "activations": ("sigmoid", "softsign", "tanh"),
    },
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
    parameters = lstm.state_dict()
    for name, array in parameters.items():
        if "_ln_" in name or name.startswith("initial"):  # which begin as ones and zeros
            array += rng.uniform(-0.5, 0.5, array.shape).astype(array.dtype)
    lstm.load_state_dict(parameters)
    extra = {}
    if lengths:  # the longest neither first nor last, one of zero
        extra["lengths"] = rng.permutation(np.linspace(0, T, B).astype(int))
    if resets:
        extra["resets"] = rng.random((T, B)) < 0.3
    x = rng.standard_normal((T, B, I)).astype(lstm.dtype)
    return Example(lstm, x, random_state(rng, lstm, B), extra)


def random_state(rng, lstm, B):
    directions = 2 if lstm.bidirectional else 1

    def part(scale, *sizes):
        if len(set(sizes)) == 1:
            shape = (lstm.num_layers * directions, B, sizes[0])
            return rng.uniform(-scale, scale, shape).astype(lstm.dtype)
        shapes = ((directions, B, size) for size in sizes)
        return [rng.uniform(-scale, scale, shape).astype(lstm.dtype) for shape in shapes]

    widths = lstm.hidden_size if isinstance(lstm.hidden_size, list) else [lstm.hidden_size]
    return part(1, *(lstm.proj_size or width for width in widths)), part(2, *widths)
