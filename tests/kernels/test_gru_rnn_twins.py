"""The GRU and the RNN of every compiled build compute what the reference does."""

import numpy as np
import pytest
from compare import assert_close
from walks import KINDS, Walk, walk

from fastlstm.kernels import load, reference
from fastlstm.kernels.reference.activations import Kind

UNTOUCHED = 7.0  # what outputs hold beforehand, so that a stray write shows
SIZES = [  # T, B, I, H
    (7, 5, 3, 4),
    (3, 1, 2, 40),
    (1, 6, 2, 1),
    (5, 13, 17, 33),
    (2, 70, 5, 19),
    (4, 2, 40, 16),
    (6, 7, 9, 130),
    (30, 3, 5, 64),
]
HARD = [Kind.HARD_SIGMOID, 0.3, 0.4], [Kind.LEAKY_RELU, -0.2, 0]
SOFT = [Kind.SOFTSIGN, 0, 0], [Kind.SCALED_TANH, 0.8, 0.9]
GENERAL = {  # linear_before_reset, activations, clip
    "after": (True, HARD, 0.7),
    "before": (False, SOFT, np.inf),
    "before, clipped": (False, HARD, 0.7),
}


@pytest.fixture
def build(compiled, dtype):
    """The module of one compiled build."""
    return load(compiled, "test")[dtype]


class Layer:
    """Random weights, input and state of one layer in one direction."""

    def __init__(self, rng, dtype, T, B, I, H, gates):
        def uniform(*shape, scale=1.0):
            return rng.uniform(-scale, scale, shape).astype(dtype)

        self.shape, self.dtype, self.gates = (T, B, I, H), dtype, gates
        self.x = rng.standard_normal((T, B, I)).astype(dtype)
        self.h0 = uniform(B, H)
        self.W_ih = uniform(gates * H, I, scale=I**-0.5)
        self.W_hh = uniform(gates * H, H, scale=H**-0.5)
        self.bias_ih, self.bias_hh = uniform(2, gates * H)
        self.bias = uniform(4, H)
        self.dy, self.dh = uniform(T, B, H), uniform(B, H)

    def empty(self, *shape):
        return np.full(shape, UNTOUCHED, self.dtype)

    def forward(self, kernel, weights, options, kept, steps):
        """y, h_n and what is kept of live steps."""
        T, B, _, H = self.shape
        y, h_n = self.empty(T, B, H), self.empty(B, H)
        kernel(self.x, *weights, self.h0, y, h_n, *options, **vars(steps), **kept)
        alive = steps.alive(T, B)
        return {"y": y, "h_n": h_n} | {name: array[alive] for name, array in kept.items()}

    def gru(self, module, steps, general=None, keep=True):
        T, B, _, H = self.shape
        kept = {"gates": self.empty(T, B, 4, H)} if keep else {}
        if general is None:
            weights = (module.pack_gru(self.W_ih, self.W_hh, self.bias_ih, self.bias_hh),)
            return self.forward(module.gru_forward, weights, (), kept, steps), kept
        if keep:
            kept["slopes"] = self.empty(T, B, 3, H)
        parts = self.W_ih, self.W_hh[: 2 * H], self.W_hh[2 * H :]
        weights = *map(module.pack, parts), self.bias
        before, activations, clip = general
        options = before, np.array(activations, self.dtype), clip
        return self.forward(module.gru_general_forward, weights, options, kept, steps), kept

    def gru_backward(self, module, steps, kept, y, before):
        T, B, _, H = self.shape
        gates, dh = kept["gates"].copy(), self.dh.copy()
        weights = module.pack(self.W_hh[: 2 * H].T), module.pack(self.W_hh[2 * H :].T)
        walked = *vars(steps).values(), kept.get("slopes")
        module.gru_backward(gates, y, self.h0, self.dy, dh, *weights, before, *walked)
        return {"gates": gates[steps.alive(T, B)], "dh": dh}

    def rnn(self, module, steps, activation, clip, keep=True):
        T, B, _, H = self.shape
        kept = {"gates": self.empty(T, B, 1, H)} if keep else {}
        weights = module.pack(self.W_ih), module.pack(self.W_hh), self.bias_ih
        options = np.array(activation, self.dtype), clip
        return self.forward(module.rnn_forward, weights, options, kept, steps), kept

    def rnn_backward(self, module, steps, kept):
        T, B, *_ = self.shape
        gates, dh = kept["gates"].copy(), self.dh.copy()
        module.rnn_backward(gates, self.dy, dh, module.pack(self.W_hh.T), **vars(steps))
        return {"gates": gates[steps.alive(T, B)], "dh": dh}


def assert_all_close(actual, expected, dtype):
    for name in actual:
        assert_close(actual[name], expected[name], dtype, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("general", [None, *GENERAL.values()], ids=["plain", *GENERAL])
def test_gru(build, rng, dtype, sizes, kind, general):
    layer, steps = Layer(rng, dtype, *sizes, gates=3), walk(rng, *sizes[:2], kind)
    expected, kept = layer.gru(reference, steps, general)
    actual, own = layer.gru(build, steps, general)
    assert kept.keys() == own.keys()
    assert_all_close(actual, expected, dtype)
    assert_all_close(layer.gru(build, steps, general, keep=False)[0], expected, dtype)
    before = general is None or general[0]
    assert_all_close(
        layer.gru_backward(build, steps, kept, expected["y"], before),
        layer.gru_backward(reference, steps, kept, expected["y"], before),
        dtype,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(
    ("activation", "clip"),
    [((Kind.TANH, 0, 0), np.inf), ((Kind.RELU, 0, 0), np.inf), ((Kind.ELU, 0.7, 0), 0.6)],
    ids=["tanh", "relu", "elu, clipped"],
)
def test_rnn(build, rng, dtype, sizes, kind, activation, clip):
    layer, steps = Layer(rng, dtype, *sizes, gates=1), walk(rng, *sizes[:2], kind)
    expected, kept = layer.rnn(reference, steps, activation, clip)
    assert_all_close(layer.rnn(build, steps, activation, clip)[0], expected, dtype)
    inference, _ = layer.rnn(build, steps, activation, clip, keep=False)
    assert_all_close(inference, expected, dtype)
    assert_all_close(
        layer.rnn_backward(build, steps, kept), layer.rnn_backward(reference, steps, kept), dtype
    )


@pytest.mark.parametrize("sizes", [(1000, 1, 1, 40), (1000, 3, 5, 24)], ids=str)
def test_long_sequences(build, rng, dtype, sizes):
    gru, rnn = (Layer(rng, dtype, *sizes, gates=gates) for gates in (3, 1))
    expected, _ = gru.gru(reference, Walk())
    assert_all_close(gru.gru(build, Walk())[0], expected, dtype)
    tanh = (Kind.TANH, 0, 0), np.inf
    expected, _ = rnn.rnn(reference, Walk(), *tanh)
    assert_all_close(rnn.rnn(build, Walk(), *tanh)[0], expected, dtype)


@pytest.mark.parametrize("general", [None, *GENERAL.values()], ids=["plain", *GENERAL])
def test_shapes_that_do_not_fit(build, rng, dtype, general):
    """No array is read or written beyond its end."""
    T, B, I, H = 4, 3, 2, 5
    layer = Layer(rng, dtype, T, B, I, H, gates=3)
    wrong = layer.x[:, :, :1], layer.h0[:2], layer.h0[:, :4]
    for name, value in zip(("x", "h0", "h0"), map(np.ascontiguousarray, wrong), strict=True):
        right = getattr(layer, name)
        setattr(layer, name, value)
        with pytest.raises(ValueError, match="shape"):
            layer.gru(build, Walk(), general)
        with pytest.raises(ValueError, match="shape"):
            layer.rnn(build, Walk(), (Kind.TANH, 0, 0), np.inf)
        setattr(layer, name, right)
    with pytest.raises(ValueError, match="rows"):
        layer.gru(build, Walk(rows=np.array([3])), general)


def test_unknown_activations(build, rng, dtype):
    layer = Layer(rng, dtype, 4, 3, 2, 5, gates=1)
    for kind in (-1, 11, 1e9):
        with pytest.raises(ValueError, match="kind"):
            layer.rnn(build, Walk(), (kind, 0, 0), np.inf)
