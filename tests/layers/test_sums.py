"""Gradients of parameters are sums over all rows of all steps; rounding must not add up in them.

Errors are in the norm, in units of float32's rounding (2⁻²⁴). A running sum of 25,000 numbers is
off by about 50 of them, one of a million by 300 to 700.
"""

import functools

import numpy as np
import pytest

import fastlstm as fl

LIMIT = 12
LAYERS = {
    "LSTM": (fl.LSTM, {}),
    "projected": (fl.LSTM, {"proj_size": 4}),
    "peepholes": (fl.LSTM, {"peepholes": True}),
    "peepholes, projected": (fl.LSTM, {"peepholes": True, "proj_size": 4}),
    "layer norm": (fl.LSTM, {"layer_norm": True}),
    "layer norm, peepholes": (fl.LSTM, {"layer_norm": True, "peepholes": True}),
    "zoneout": (fl.LSTM, {"zoneout": (0.2, 0.3), "recurrent_dropout": 0.3}),
    "both directions": (fl.LSTM, {"bidirectional": True, "num_layers": 2}),
    "GRU": (fl.GRU, {}),
    "GRU, published": (fl.GRU, {"linear_before_reset": False}),
    "RNN": (fl.RNN, {}),
}
I, H = 5, 7


def error(actual, exact):
    """Of a gradient, in units of float32's rounding."""
    assert actual.dtype == np.float32
    return np.linalg.norm(actual - exact) / np.linalg.norm(exact) / 2**-24


def make(name):
    kind, options = LAYERS[name]
    layer = kind(I, H, rng=3, **options)
    values = layer.state_dict()
    if "weight_ln_hh_l0" in values:  # 1 makes such a small layer chaotic
        values["weight_ln_hh_l0"] *= np.float32(0.1)
        layer.load_state_dict(values)
    return layer


@functools.cache
def example(name, T, B):
    """A layer, its x, lengths and dy, and the gradients in float64 by the reference."""
    kind, options = LAYERS[name]
    rng = np.random.default_rng(T)
    layer = make(name)
    exact_layer = kind(I, H, rng=3, dtype=np.float64, **options)
    exact_layer.load_state_dict(layer.state_dict())
    x = (rng.standard_normal((T, B, I)) + 0.5).astype(np.float32)
    dy = (rng.standard_normal(layer(x)[0].shape) + 0.5).astype(np.float32)
    lengths = T - rng.integers(0, T // 20, B)
    with fl.use_backend("reference"):
        exact = gradients(exact_layer, x, lengths, dy)
    return x, lengths, dy, exact


def gradients(layer, x, lengths, dy, **threads):
    _, tape = layer.forward(x, lengths=lengths, **threads)
    return layer.backward(tape, dy, **threads).params


def check(name, T, B):
    x, lengths, dy, exact = example(name, T, B)
    actual = gradients(make(name), x, lengths, dy)
    errors = {key: error(gradient, exact[key]) for key, gradient in actual.items()}
    assert max(errors.values()) < LIMIT, errors


@pytest.mark.parametrize("name", LAYERS)
def test_many_rows(kernels, name):
    check(name, 197, 131)


@pytest.mark.parametrize("name", [name for name in LAYERS if "peep" in name or "norm" in name])
def test_many_steps(kernels, name):
    """Some gradients are summed by row first, then over the rows."""
    check(name, 4001, 7)


@pytest.mark.slow
@pytest.mark.parametrize("T", [1013, 200_003])
@pytest.mark.parametrize("name", LAYERS)
def test_a_million(compiled, name, T):
    check(name, T, 1_000_000 // T)


def test_learned_state(kernels, rng):
    x = rng.standard_normal((1, 25_007, I)).astype(np.float32)
    layer = fl.LSTM(I, H, learn_initial_state=True, rng=3)
    _, tape = layer.forward(x)
    grads = layer.backward(tape, np.full((1, 25_007, H), 0.3, np.float32))
    for part, gradient in zip("hc", grads.state, strict=True):
        exact = gradient[0].astype(np.float64).sum(axis=0)
        assert error(grads.params[f"initial_{part}_l0"], exact) < LIMIT


@pytest.mark.parametrize("rows", [25_007, pytest.param(1_000_003, marks=pytest.mark.slow)])
def test_linear(kernels, rng, rows):
    layer = fl.Linear(I, H, rng=3)
    x = (rng.standard_normal((rows, I)) + 0.5).astype(np.float32)
    dy = (rng.standard_normal((rows, H)) + 0.5).astype(np.float32)
    _, tape = layer.forward(x)
    params = layer.backward(tape, dy).params
    assert error(params["weight"], dy.T.astype(np.float64) @ x) < LIMIT
    assert error(params["bias"], dy.astype(np.float64).sum(axis=0)) < LIMIT


@pytest.mark.parametrize("rows", [25_007, pytest.param(1_000_003, marks=pytest.mark.slow)])
def test_embedding(rng, rows):
    layer = fl.Embedding(3, H, rng=3)
    x = rng.integers(0, 3, rows)
    dy = (rng.standard_normal((rows, H)) + 0.5).astype(np.float32)
    _, tape = layer.forward(x)
    exact = np.stack([dy[x == k].astype(np.float64).sum(axis=0) for k in range(3)])
    assert error(layer.backward(tape, dy).params["weight"], exact) < LIMIT


def test_infinity_and_nan(kernels, dtype):
    """What is kept apart against rounding does not turn an infinite sum into NaN."""
    layer = fl.Linear(1, 4, dtype=dtype)
    dy = np.ones((300, 4), dtype)
    dy[17, 0], dy[200, 1], dy[3, 2] = np.inf, -np.inf, np.nan
    _, tape = layer.forward(np.ones((300, 1), dtype))
    bias = layer.backward(tape, dy).params["bias"]
    np.testing.assert_array_equal(bias, [np.inf, -np.inf, np.nan, 300])


@pytest.mark.parametrize("name", ["layer norm, peepholes", "zoneout", "GRU", "RNN"])
def test_threads_give_the_same_bits(compiled, share_all_work, name):
    x, lengths, dy, _ = example(name, 197, 131)
    one, two, five = (
        gradients(make(name), x, lengths, dy, threads=threads) for threads in (1, 2, 5)
    )
    for key, gradient in one.items():
        np.testing.assert_array_equal(gradient, two[key], key)
        np.testing.assert_array_equal(gradient, five[key], key)


@functools.cache
def beside_torch(kind, T, B, I, H):
    """As `example`, for a layer that torch has, and the errors of torch's gradients."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(T)
    x = (rng.standard_normal((T, B, I)) + 0.5).astype(np.float32)
    dy = (rng.standard_normal((T, B, H)) + 0.5).astype(np.float32)
    values = getattr(fl, kind)(I, H, rng=3).state_dict()
    exact_layer = getattr(fl, kind)(I, H, dtype=np.float64)
    exact_layer.load_state_dict(values)
    exact = gradients(exact_layer, x, None, dy)
    other = getattr(torch.nn, kind)(I, H)
    other.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})
    other(torch.from_numpy(x))[0].backward(torch.from_numpy(dy))
    named = other.named_parameters()
    return x, dy, exact, {name: error(own.grad.numpy(), exact[name]) for name, own in named}


@pytest.mark.parametrize(
    "sizes", [(100, 256, 16, 64), pytest.param((1000, 1000, 4, 8), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_beside_torch(kernels, kind, sizes):
    """At most three times torch's error."""
    x, dy, exact, errors = beside_torch(kind, *sizes)
    actual = gradients(getattr(fl, kind)(*sizes[2:], rng=3), x, None, dy)
    for name, limit in errors.items():
        assert error(actual[name], exact[name]) <= 3 * limit, name


def test_a_long_sum_over_the_steps_of_one_row(kernels):
    """Peepholes of i: d = Σ dz_i[t] c[t-1]. With W = R = 0 every term but the first is the same."""
    T = 40_003
    layer = fl.LSTM(1, 1, peepholes=True, rng=0)
    values = {name: np.zeros_like(value) for name, value in layer.state_dict().items()}
    values["bias_ih_l0"][:] = [0.3, -30, 0.7, 0.2]  # i, f, g, o: the cell forgets at once
    layer.load_state_dict(values)
    x, dy = np.zeros((T, 1, 1), np.float32), np.full((T, 1, 1), 0.37, np.float32)
    exact = fl.LSTM(1, 1, peepholes=True, dtype=np.float64, rng=0)
    exact.load_state_dict(values)
    actual, expected = (
        one.backward(one.forward(x)[1], dy).params["weight_peephole_l0"] for one in (layer, exact)
    )
    np.testing.assert_allclose(actual[[0, 2]], expected[[0, 2]], rtol=12 * 2**-24)
