"""The cells that kernels compute: a row for each, with how to make one, and its variants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.kernels.arguments import (
    Activation,
    GRUOptions,
    GRUWeights,
    LayerNorm,
    LSTMOptions,
    LSTMWeights,
    Masks,
    RNNOptions,
    RNNWeights,
)
from fastlstm.kernels.reference.core.activations import Kind

SIGMOID, TANH = Activation(Kind.SIGMOID), Activation(Kind.TANH)


@dataclass
class Made:
    """A cell's weights and options, and what training draws for it."""

    pack: str  # the kernels' function that packs it
    weights: Any
    options: Any
    dropout: bool = False  # whether h is masked on its way into R
    zoneout: tuple[float, float] = (0, 0)  # of h and c

    def build(self, module, backward=True):
        return getattr(module, self.pack)(self.weights, self.options, backward)

    def draw(self, rng, T, B):
        """Masks for one forward of training; None where nothing is drawn."""
        if not self.dropout and not any(self.zoneout):
            return None
        P, dtype = self.weights.W_hh.shape[1], self.weights.W_hh.dtype
        H = len(self.weights.W_hh) // 4
        recurrent = (rng.random((B, P)) < 0.7).astype(dtype) / dtype.type(0.7)
        return Masks(
            recurrent if self.dropout else None,
            rng.random((T, B, P)) < self.zoneout[0] if self.zoneout[0] else None,
            rng.random((T, B, H)) < self.zoneout[1] if self.zoneout[1] else None,
        )


def uniform_of(rng, dtype):
    def uniform(*shape, scale=1.0):
        return rng.uniform(-scale, scale, shape).astype(dtype)

    return uniform


def make_lstm(
    rng,
    dtype,
    I,
    H,
    projected=False,
    bias=True,
    peepholes=False,
    coupled=False,
    norm=False,
    clip=np.inf,
    zoneout=(0, 0),
    dropout=False,
    activations=(SIGMOID, TANH, TANH),
    scale=1.0,
):
    uniform = uniform_of(rng, dtype)
    P = H // 2 + 1 if projected else H
    weights = LSTMWeights(
        uniform(4 * H, I, scale=scale * I**-0.5),
        uniform(4 * H, P, scale=scale * P**-0.5),
        uniform(4 * H, scale=scale) if bias else None,
        uniform(4 * H, scale=scale) if bias else None,
        uniform(P, H, scale=H**-0.5) if projected else None,
        uniform(3 * H) if peepholes else None,
        LayerNorm(uniform(4 * H), uniform(4 * H), uniform(H), uniform(H) if bias else None)
        if norm
        else None,
    )
    options = LSTMOptions(*activations, clip, coupled, *zoneout)
    return Made("pack_lstm", weights, options, dropout, zoneout)


def make_gru(
    rng, dtype, I, H, bias=True, linear_before_reset=True, activations=(SIGMOID, TANH), clip=np.inf
):
    uniform = uniform_of(rng, dtype)
    weights = GRUWeights(
        uniform(3 * H, I, scale=I**-0.5),
        uniform(3 * H, H, scale=H**-0.5),
        uniform(3 * H) if bias else None,
        uniform(3 * H) if bias else None,
    )
    return Made("pack_gru", weights, GRUOptions(*activations, clip, linear_before_reset))


def make_rnn(rng, dtype, I, H, bias=True, activation=TANH, clip=np.inf):
    uniform = uniform_of(rng, dtype)
    weights = RNNWeights(
        uniform(H, I, scale=I**-0.5),
        uniform(H, H, scale=H**-0.5),
        uniform(H) if bias else None,
        uniform(H) if bias else None,
    )
    return Made("pack_rnn", weights, RNNOptions(activation, clip))


HARD = Activation(Kind.HARD_SIGMOID, 0.3, 0.4), Activation(Kind.LEAKY_RELU, -0.2)
SOFT = Activation(Kind.SOFTSIGN), Activation(Kind.SCALED_TANH, 0.8, 0.9)
LSTM_VARIANTS = {
    "plain": {},
    "no bias": {"bias": False},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "peepholes, coupled": {"peepholes": True, "coupled": True},
    "layer norm": {"norm": True},
    "layer norm, no bias": {"norm": True, "bias": False},
    "clip": {"clip": 0.6, "peepholes": True},
    "zoneout": {"zoneout": (0.3, 0.45)},
    "zoneout of h": {"zoneout": (0.4, 0)},
    "zoneout of c, dropout": {"zoneout": (0, 0.45), "dropout": True},
    "recurrent dropout": {"dropout": True},
    "softsign, elu, scaled tanh": {
        "activations": (
            Activation(Kind.SOFTSIGN),
            Activation(Kind.ELU, 0.5),
            Activation(Kind.SCALED_TANH, 0.5, 1.5),
        )
    },
    "hard sigmoid, relu, affine": {
        "activations": (
            Activation(Kind.HARD_SIGMOID, 0.2, 0.5),
            Activation(Kind.RELU),
            Activation(Kind.AFFINE, 0.5, -0.1),
        )
    },
    "softplus, leaky, thresholded": {
        "activations": (
            Activation(Kind.SOFTPLUS),
            Activation(Kind.LEAKY_RELU, 0.1),
            Activation(Kind.THRESHOLDED_RELU, 0.2),
        ),
        "scale": 0.2,
    },
    "everything": {
        "peepholes": True,
        "coupled": True,
        "norm": True,
        "clip": 0.9,
        "zoneout": (0.3, 0.45),
        "dropout": True,
    },
}
LSTM_VARIANTS |= {
    f"projected, {name}": {"projected": True, **options} for name, options in LSTM_VARIANTS.items()
}
GRU_VARIANTS = {
    "plain": {},
    "no bias": {"bias": False},
    "published": {"linear_before_reset": False},
    "hard, clipped": {"activations": HARD, "clip": 0.7},
    "published, soft": {"linear_before_reset": False, "activations": SOFT},
    "published, hard, clipped": {"linear_before_reset": False, "activations": HARD, "clip": 0.7},
}
RNN_VARIANTS = {
    "tanh": {},
    "no bias": {"bias": False},
    "relu": {"activation": Activation(Kind.RELU)},
    "elu, clipped": {"activation": Activation(Kind.ELU, 0.7), "clip": 0.6},
}
FEW_SIZES = [(7, 5, 3, 4), (3, 1, 2, 40), (5, 13, 17, 33), (6, 7, 9, 16)]  # T, B, I, H
SIZES = [
    (7, 5, 3, 4),
    (3, 1, 2, 40),
    (1, 6, 2, 1),
    (5, 13, 17, 33),
    (2, 70, 5, 19),
    (4, 2, 40, 16),
    (6, 7, 9, 130),
    (30, 3, 5, 64),
]
MANY_SIZES = {"plain", "projected, plain", "published", "tanh"}


@dataclass
class CellKind:
    make: Callable[..., Made]
    variants: dict[str, dict[str, Any]]

    def sizes(self, variant):
        """T, B, I, H to try. Variants share the walk of the plain cells: a few will do."""
        return SIZES if variant in MANY_SIZES else FEW_SIZES


CELLS = {
    "LSTM": CellKind(make_lstm, LSTM_VARIANTS),
    "GRU": CellKind(make_gru, GRU_VARIANTS),
    "RNN": CellKind(make_rnn, RNN_VARIANTS),
}

PLAIN = [("LSTM", "plain"), ("LSTM", "projected, plain"), ("GRU", "plain"), ("RNN", "tanh")]
