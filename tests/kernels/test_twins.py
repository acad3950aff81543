"""Every compiled build computes what the reference does, asked directly."""

import inspect

import numpy as np
import pytest
from compare import assert_close
from walks import KINDS, Walk, walk

from fastlstm.kernels import load, reference

UNTOUCHED = 7.0  # what outputs hold beforehand, so that a stray write shows
SIZES = [  # T, B, I, H
    (7, 5, 3, 4),
    (3, 1, 2, 40),
    (1, 6, 2, 1),
    (5, 13, 17, 33),
    (2, 70, 5, 19),
    (4, 2, 40, 16),
    (6, 7, 9, 130),
]


@pytest.fixture
def build(compiled, dtype):
    """The module of one compiled build."""
    return load(compiled, "test")[dtype]


class Layer:
    """Random weights, input and state of one layer in one direction."""

    def __init__(self, rng, dtype, T, B, I, H, P=None):
        def uniform(*shape, scale):
            return rng.uniform(-scale, scale, shape).astype(dtype)

        P, self.projected = P or H, P is not None
        self.shape, self.dtype = (T, B, I, H, P), dtype
        self.x = rng.standard_normal((T, B, I)).astype(dtype)
        self.h0 = uniform(B, P, scale=1)
        self.c0 = uniform(B, H, scale=2)
        self.W_ih = uniform(4 * H, I, scale=I**-0.5)
        self.W_hh = uniform(4 * H, P, scale=P**-0.5)
        self.W_hr = uniform(P, H, scale=H**-0.5)
        self.bias = uniform(4 * H, scale=1)
        self.dy = uniform(T, B, P, scale=1)
        self.dh = uniform(B, P, scale=1)
        self.dc = uniform(B, H, scale=1)

    def full(self, *shape):
        return np.full(shape, UNTOUCHED, self.dtype)

    def forward(self, module, walk, keep=True, x=None, y=None):
        T, B, _, H, P = self.shape
        result = {
            "y": self.full(T, B, P) if y is None else y,
            "h_n": self.full(B, P),
            "c_n": self.full(B, H),
        }
        kept = {}
        if keep:
            kept = {"gates": self.full(T, B, 4, H), "cells": self.full(T, B, H)}
            if self.projected:
                kept["hidden"] = self.full(T, B, H)
        module.lstm_forward(
            self.x if x is None else x,
            module.pack_gates(self.W_ih, self.W_hh, self.bias),
            module.pack(self.W_hr) if self.projected else None,
            self.h0,
            self.c0,
            *result.values(),
            **vars(walk),
            **kept,
        )
        alive = walk.alive(T, B)
        return result | {name: array[alive] for name, array in kept.items()}, kept

    def backward(self, module, walk, kept):
        T, B, *_, P = self.shape
        gates, dh, dc = kept["gates"].copy(), self.dh.copy(), self.dc.copy()
        extra = {}
        if self.projected:
            extra = {
                "projection": module.pack(self.W_hr.T),
                "dprojected": self.full(T, B, P),
            }
        module.lstm_backward(
            gates,
            kept["cells"],
            self.c0,
            self.dy,
            dh,
            dc,
            module.pack(self.W_hh.T),
            **vars(walk),
            **extra,
        )
        alive = walk.alive(T, B)
        result = {"gates": gates[alive], "dh": dh, "dc": dc}
        if self.projected:
            result["dprojected"] = extra["dprojected"][alive]
        return result


def assert_all_close(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    for name in expected:
        assert_close(actual[name], expected[name], dtype, name)


def public_functions(module):
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, np.ufunc)
        or (getattr(value, "__module__", "") == module.__name__ and not name.startswith("_"))
    }


def test_signatures(build):
    functions = public_functions(build)
    expected = {name: getattr(reference, name) for name in reference.__all__}
    assert set(functions) == set(expected)
    for name, function in expected.items():
        assert [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(functions[name]).parameters.values()
        ] == [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(function).parameters.values()
        ], name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
def test_lstm(build, rng, dtype, sizes, kind, projected):
    layer = Layer(rng, dtype, *sizes, P=sizes[3] // 2 + 1 if projected else None)
    steps = walk(rng, *sizes[:2], kind)
    expected, kept = layer.forward(reference, steps)
    actual, _ = layer.forward(build, steps)
    assert_all_close(actual, expected, dtype)
    inference, _ = layer.forward(build, steps, keep=False)
    assert_all_close(inference, {name: expected[name] for name in inference}, dtype)
    assert_all_close(
        layer.backward(build, steps, kept), layer.backward(reference, steps, kept), dtype
    )


@pytest.mark.parametrize("sizes", [(1000, 1, 1, 40), (1000, 3, 5, 24)], ids=str)
def test_long_sequences(build, rng, dtype, sizes):
    layer = Layer(rng, dtype, *sizes)
    expected, kept = layer.forward(reference, Walk())
    actual, _ = layer.forward(build, Walk())
    assert_all_close(actual, expected, dtype)
    assert_all_close(
        layer.backward(build, Walk(), kept), layer.backward(reference, Walk(), kept), dtype
    )


def test_strided_input_and_output(build, rng, dtype):
    T, B, I, H = 6, 5, 3, 20
    layer = Layer(rng, dtype, T, B, I, H)
    expected, _ = layer.forward(reference, Walk())
    batch_first = np.ascontiguousarray(layer.x.transpose(1, 0, 2)).transpose(1, 0, 2)
    wide = np.full((T, B, I + 2), np.nan, dtype)
    wide[:, :, 1:-1] = layer.x
    both_directions = layer.full(B, T, 2 * H)
    for x in (batch_first, wide[:, :, 1:-1], layer.x[::-1].copy()[::-1]):
        y = both_directions.transpose(1, 0, 2)[:, :, H:]
        actual, _ = layer.forward(build, Walk(), x=x, y=y)
        assert_all_close(actual, expected, dtype)
        assert (both_directions[:, :, :H] == UNTOUCHED).all()


@pytest.mark.parametrize("kind", ["plain", "subset", "ragged"])
@pytest.mark.parametrize("accumulate", [False, True], ids=["set", "accumulate"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("sizes", [(7, 5, 3, 4), (4, 1, 130, 37), (3, 20, 17, 96)], ids=str)
def test_product(build, rng, dtype, sizes, bias, accumulate, kind):
    T, B, K, N = sizes
    a = rng.standard_normal((T, B, K)).astype(dtype)
    matrix = (rng.uniform(-1, 1, (K, N)) / K**0.5).astype(dtype).T
    start = rng.standard_normal((T, B, N)).astype(dtype)
    added = rng.standard_normal(N).astype(dtype) if bias else None
    steps = walk(rng, T, B, kind)
    results = []
    for module in (build, reference):
        out = start.copy()
        module.product(a, module.pack(matrix), out, added, steps.rows, steps.live, accumulate)
        results.append(out)
    assert_close(*results, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recurrent", ["none", "same step", "step before"])
@pytest.mark.parametrize(
    "sizes", [(7, 5, 3, 4), (5, 2, 33, 40), (40, 9, 20, 17), (3, 6, 5, 0)], ids=str
)
def test_weight_gradient(build, rng, dtype, sizes, recurrent, kind):
    T, B, M, N = sizes
    dz = (rng.standard_normal((T, B, M)) / (T * B) ** 0.5).astype(dtype)
    source = rng.standard_normal((T, B, N)).astype(dtype)
    P = N + 2
    y = rng.standard_normal((T, B, P)).astype(dtype)
    h0 = rng.standard_normal((B, P)).astype(dtype)
    steps = walk(rng, T, B, kind)
    results = []
    for module in (build, reference):
        dW, dR = np.full((M, N), UNTOUCHED, dtype), np.full((M, P), UNTOUCHED, dtype)
        met = {"none": (), "same step": (y, None, dR), "step before": (y, h0, dR)}[recurrent]
        db = np.full(M, UNTOUCHED, dtype)
        module.weight_gradient(dz, source, dW, *met, **vars(steps), db=db)
        results.append(np.concatenate([dW, dR, db[:, None]], axis=1))
    assert_close(*results, dtype)


def test_weight_gradient_of_some_columns(build, rng, dtype):
    T, B, M, N = 7, 5, 12, 9
    dz = (rng.standard_normal((T, B, 3 * M)) / 6).astype(dtype)[:, :, M : 2 * M]
    source = rng.standard_normal((B, T, 2 * N)).astype(dtype).transpose(1, 0, 2)[:, :, N:]
    h0 = rng.standard_normal((B, N)).astype(dtype)
    results = []
    for module in (build, reference):
        dW, dR = np.full((2, 3 * M, N), UNTOUCHED, dtype)
        part = slice(M, 2 * M)
        module.weight_gradient(dz, source, dW[part], source, h0, dR[part])
        results.append(np.concatenate([dW, dR]))
    assert_close(*results, dtype)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_activations(build, rng, dtype, name):
    x = np.concatenate([rng.uniform(-20, 20, 1001), rng.uniform(-1, 1, 1000)]).astype(dtype)
    before = x.copy()
    assert_close(getattr(build, name)(x), getattr(reference, name)(x), dtype)
    np.testing.assert_array_equal(x, before)
