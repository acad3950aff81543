"""Every compiled build computes what the reference does, for every variant of the LSTM."""

import numpy as np
import pytest
from compare import TWINS, assert_close, assert_near
from walks import KINDS, walk

from fastlstm.kernels import load, reference
from fastlstm.kernels.reference.activations import Kind

UNTOUCHED = 7.0  # what outputs hold beforehand, so that a stray write shows
SIZES = [(7, 5, 3, 4), (3, 1, 2, 40), (5, 13, 17, 33), (6, 7, 9, 16)]  # T, B, I, H
VARIANTS = {
    "plain": {},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "peepholes, coupled": {"peepholes": True, "coupled": True},
    "layer norm": {"norm": True},
    "clip": {"clip": 0.6, "peepholes": True},
    "zoneout": {"zoneout": (0.3, 0.45)},
    "recurrent dropout": {"mask": True},
    "softsign, elu, scaled tanh": {
        "activations": [(Kind.SOFTSIGN, 0, 0), (Kind.ELU, 0.5, 0), (Kind.SCALED_TANH, 0.5, 1.5)]
    },
    "hard sigmoid, relu, affine": {
        "activations": [(Kind.HARD_SIGMOID, 0.2, 0.5), (Kind.RELU, 0, 0), (Kind.AFFINE, 0.5, -0.1)]
    },
    "softplus, leaky, thresholded": {
        "activations": [
            (Kind.SOFTPLUS, 0, 0),
            (Kind.LEAKY_RELU, 0.1, 0),
            (Kind.THRESHOLDED_RELU, 0.2, 0),
        ],
        "weights": 0.2,
    },
    "everything": {
        "peepholes": True,
        "coupled": True,
        "norm": True,
        "clip": 0.9,
        "zoneout": (0.3, 0.45),
        "mask": True,
    },
}


class Layer:
    """Random weights, input and state of one layer in one direction."""

    def __init__(
        self,
        rng,
        dtype,
        sizes,
        projected,
        peepholes=False,
        coupled=False,
        norm=False,
        clip=np.inf,
        zoneout=(0, 0),
        mask=False,
        activations=((Kind.SIGMOID, 0, 0), (Kind.TANH, 0, 0), (Kind.TANH, 0, 0)),
        weights=1.0,
    ):
        def uniform(*shape, scale=1.0):
            return rng.uniform(-scale, scale, shape).astype(dtype)

        self.T, self.B, I, self.H = T, B, I, H = sizes
        self.P = P = H // 2 + 1 if projected else H
        self.projected, self.normal, self.zoneout, self.dtype = projected, norm, zoneout, dtype
        self.x = rng.standard_normal((T, B, I)).astype(dtype)
        self.h0, self.c0 = uniform(B, P), uniform(B, H, scale=2)
        self.W_ih = uniform(4 * H, I, scale=weights * I**-0.5)
        self.W_hh = uniform(4 * H, P, scale=weights * P**-0.5)
        self.W_hr = uniform(P, H, scale=H**-0.5)
        self.bias = np.zeros(4 * H, dtype) if norm else uniform(4 * H)
        self.dy, self.dh, self.dc = uniform(T, B, P), uniform(B, P), uniform(B, H)
        self.cell = {
            "activations": np.array(activations, dtype),
            "clip": clip,
            "coupled": coupled,
            "peepholes": uniform(3, H) if peepholes else None,
            "norm": uniform(14, H) if norm else None,
        }
        self.training = {
            "kept_h": rng.random((T, B, P)) < zoneout[0] if zoneout[0] else None,
            "kept_c": rng.random((T, B, H)) < zoneout[1] if zoneout[1] else None,
            "mask": (rng.random((B, P)) < 0.7).astype(dtype) / dtype.type(0.7) if mask else None,
        }

    def full(self, *shape):
        return np.full(shape, UNTOUCHED, self.dtype)

    def forward(self, module, steps, keep=True):
        T, B, H, P = self.T, self.B, self.H, self.P
        result = {"y": self.full(T, B, P), "h_n": self.full(B, P), "c_n": self.full(B, H)}
        kept = {}
        if keep:
            kept = {"gates": self.full(T, B, 4, H), "cells": self.full(T, B, H)}
            if self.projected:
                kept["hidden"] = self.full(T, B, H)
            if self.training["mask"] is not None:
                kept["masked"] = self.full(T, B, P)
            if self.normal:
                kept["recurrent_gates"] = self.full(T, B, 4, H)
                kept["scales"] = self.full(T, B, 2, 4)
        module.lstm_general_forward(
            self.x,
            module.pack_gates(self.W_ih, self.W_hh, self.bias),
            module.pack(self.W_hr) if self.projected else None,
            self.h0,
            self.c0,
            *result.values(),
            **self.cell,
            zoneout_h=self.zoneout[0],
            zoneout_c=self.zoneout[1],
            **vars(steps),
            **kept,
            **(self.training if keep else {}),
        )
        alive = steps.alive(T, B)
        return result | {name: array[alive] for name, array in kept.items()}, kept

    def backward(self, module, steps, kept):
        T, B, H, P = self.T, self.B, self.H, self.P
        result = {"dh": self.dh.copy(), "dc": self.dc.copy()}
        of_steps = {"gates": kept["gates"].copy()}
        if self.projected:
            of_steps["dprojected"] = self.full(T, B, P)
        if self.normal:
            of_steps["recurrent_gates"] = kept["recurrent_gates"].copy()
            result["d_norm"] = self.full(B, 14, H)
        if self.cell["peepholes"] is not None:
            result["d_peepholes"] = self.full(B, 3, H)
        arguments = (
            self.training
            | self.cell
            | vars(steps)
            | result
            | of_steps
            | {"projection": module.pack(self.W_hr.T) if self.projected else None}
        )
        module.lstm_general_backward(
            cells=kept["cells"],
            c0=self.c0,
            dy=self.dy,
            recurrent=module.pack(self.W_hh.T),
            scales=kept.get("scales"),
            **arguments,
        )
        if self.normal:  # 1 / sqrt(variance) may be 300, above all after a reset
            of_steps["recurrent_gates"] /= kept["scales"][:, :, 1, :, None]
        alive = steps.alive(T, B)
        return result | {name: array[alive] for name, array in of_steps.items()}


def assert_all_close(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    for name in expected:
        if name == "recurrent_gates":  # in backward, sums that cancel
            assert_near(actual[name], expected[name], TWINS[dtype][0], name)
        else:
            assert_close(actual[name], expected[name], dtype, name)


@pytest.mark.parametrize("projected", [False, True], ids=["", "projected"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_twins(compiled, rng, dtype, variant, sizes, kind, projected):
    build = load(compiled, "test")[dtype]
    layer, steps = Layer(rng, dtype, sizes, projected, **variant), walk(rng, *sizes[:2], kind)
    expected, kept = layer.forward(reference, steps)
    actual, _ = layer.forward(build, steps)
    assert_all_close(actual, expected, dtype)
    expected, _ = layer.forward(reference, steps, keep=False)
    actual, _ = layer.forward(build, steps, keep=False)
    assert_all_close(actual, expected, dtype)
    expected = layer.backward(reference, steps, kept)
    assert_all_close(layer.backward(build, steps, kept), expected, dtype)
