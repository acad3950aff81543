"""`Activation`: every function and its gradient, against scalar formulas and differences."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.layers import activation
from fastlstm.layers.activation import erfc, normal_distribution

E = math.exp
FUNCTIONS = {
    ("sigmoid",): lambda v: 1 / (1 + E(-v)),
    ("tanh",): math.tanh,
    ("relu",): lambda v: max(v, 0),
    ("affine", 2.0, 0.3): lambda v: 2 * v + 0.3,
    ("leaky_relu",): lambda v: v if v >= 0 else 0.01 * v,
    ("leaky_relu", 0.2): lambda v: v if v >= 0 else 0.2 * v,
    ("thresholded_relu", 0.4): lambda v: v if v > 0.4 else 0,
    ("scaled_tanh", 1.7, 0.6): lambda v: 1.7 * math.tanh(0.6 * v),
    ("hard_sigmoid",): lambda v: min(max(0.2 * v + 0.5, 0), 1),
    ("hard_sigmoid", 1 / 6, 0.5): lambda v: min(max(v / 6 + 0.5, 0), 1),
    ("elu", 0.7): lambda v: v if v >= 0 else 0.7 * (E(v) - 1),
    ("softsign",): lambda v: v / (1 + abs(v)),
    ("softplus",): lambda v: math.log(1 + E(v)),
    ("silu",): lambda v: v / (1 + E(-v)),
    ("gelu",): lambda v: v * (1 + math.erf(v / 2**0.5)) / 2,
    ("gelu_tanh",): lambda v: v * (1 + math.tanh((2 / math.pi) ** 0.5 * (v + 0.044715 * v**3))) / 2,
    ("selu",): lambda v: 1.0507009873554805 * (v if v >= 0 else 1.6732632423543772 * (E(v) - 1)),
    ("exponential",): E,
}


@pytest.fixture
def x(rng):
    return rng.normal(0, 2, (5, 3, 4))


@pytest.mark.parametrize("arguments", FUNCTIONS, ids=str)
def test_function_and_gradient(arguments, x, rng):
    layer, function = fl.Activation(*arguments), np.vectorize(FUNCTIONS[arguments], otypes=[float])
    np.testing.assert_allclose(layer(x), function(x), rtol=1e-12, atol=1e-14)
    y, tape = layer.forward(x)
    assert (y == layer(x)).all()
    dy, h = rng.normal(size=x.shape), 1e-6
    slope = (function(x + h) - function(x - h)) / (2 * h)
    np.testing.assert_allclose(layer.backward(tape, dy).x, slope * dy, rtol=1e-6, atol=1e-8)


def test_erfc_is_exact_to_four_units():
    """Of float64, also beside the borders of its formulas, and where it ends."""
    borders = np.array([0.46875, 4, 26, 0])
    near = [np.nextafter(borders, -9), borders, np.nextafter(borders, 99)]
    x = np.concatenate([np.linspace(-7, 26.4, 20_001), *near, *(-part for part in near)])
    exact = np.array([math.erfc(value) for value in x])
    np.testing.assert_allclose(erfc(x), exact, rtol=1e-15, atol=0)
    ends = np.array([np.inf, -np.inf, np.nan, 1e308, -1e308, 27, 40])
    np.testing.assert_array_equal(erfc(ends)[:5], [0, 2, np.nan, 0, 2])
    assert (erfc(ends)[5:] < 1e-300).all()


def exact_normal_distribution(x):
    """Φ(x) by the series of erf (Abramowitz & Stegun 7.1.5), to 20 digits after all cancelation."""
    with localcontext() as context:
        context.prec = 120
        z = Decimal(x)
        term = total = z
        for k in range(1, 600):
            term *= -z * z / (2 * k)
            total += term / (2 * k + 1)
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640629")
        return float((1 + total * 2 / (2 * pi).sqrt()) / 2)


def test_the_normal_distribution_is_exact_to_four_units():
    x = np.concatenate([np.linspace(-9, 9, 61), [-1e-9, 0.66, 5.65]])
    exact = [exact_normal_distribution(value) for value in x.tolist()]
    # The argument of erfc is rounded, and x²/2 of its exponent is 40.
    relative = 1e-15 + (x * x) * np.finfo(float).eps
    assert (np.abs(normal_distribution(x) - exact) <= relative * exact).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_many_numbers_is_that_of_each(dtype, rng):
    """The same bits, whatever stands beside a number, and in whichever chunk."""
    x = 2 * rng.normal(size=(3, 5, 701)).astype(dtype)
    layer = fl.Activation("gelu")
    y = layer(x)
    np.testing.assert_array_equal(y[1, 2], layer(x[1, 2]))
    np.testing.assert_array_equal(y.ravel()[::997], [layer(value) for value in x.ravel()[::997]])
    ends = layer(np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], dtype))
    np.testing.assert_array_equal(ends, np.array([np.inf, np.nan, np.nan, 1e30, -0.0], dtype))


def test_many_numbers_round_as_few(monkeypatch):
    """A number whose float32 neighbors are as near is computed as if it stood alone."""
    x = np.linspace(-5, 5, 100_001, dtype=np.float32)
    asked = []
    one_by_one = activation._erfc_one_by_one
    monkeypatch.setattr(activation, "_erfc_one_by_one", lambda z: asked.append(z) or one_by_one(z))
    monkeypatch.setattr(activation, "MARGIN", 1e-10)
    many = normal_distribution(x)
    assert 10 < len(asked[0]) < 2000
    monkeypatch.setattr(activation, "FEW", len(x))
    np.testing.assert_array_equal(many, normal_distribution(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_over_its_range(dtype):
    """Relative to each result: also on the left, where results are small."""
    x = np.linspace(-12, 12, 4001).astype(dtype)
    exact = [0.5 * v * math.erfc(-v * 0.5**0.5) for v in x.tolist()]
    slope = [
        0.5 * math.erfc(-v * 0.5**0.5) + v * E(-v * v / 2) / (2 * math.pi) ** 0.5
        for v in x.tolist()
    ]
    layer, unit = fl.Activation("gelu"), np.finfo(dtype).eps
    y, tape = layer.forward(x)
    # The argument of erfc is rounded, and x²/2 of its exponent is 72.
    np.testing.assert_allclose(y, exact, rtol=150 * np.finfo(float).eps + unit, atol=1e-44)
    dx = layer.backward(tape, np.ones_like(x)).x
    np.testing.assert_allclose(dx, slope, rtol=0, atol=3 * unit)


def test_softmax(x, rng):
    layer = fl.Activation("softmax")
    powers = np.exp(x)
    expected = powers / powers.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-13)
    assert (layer(x + 1000) > 0).all()
    _, tape = layer.forward(x)
    dy = rng.normal(size=x.shape)
    dx = layer.backward(tape, dy).x
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-6
        slope = ((layer(x + step) - layer(x - step)) * dy).sum() / 2e-6
        assert dx[place] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", ["relu", "softmax", "gelu", "silu", "selu", "exponential"])
def test_float32_stays(kind, x):
    layer = fl.Activation(kind)
    y, tape = layer.forward(x.astype(np.float32))
    assert y.dtype == np.float32
    assert layer.backward(tape, y).x.dtype == np.float32
    np.testing.assert_allclose(y, layer(x.astype(np.float32).astype(float)), rtol=1e-5, atol=1e-6)


def test_input_may_change_before_backward(x):
    layer = fl.Activation("relu")
    y, tape = layer.forward(x)
    expected = (x > 0).astype(float)
    x[...] = -1
    assert (layer.backward(tape, np.ones_like(y)).x == expected).all()


def test_in_a_model_of_lists():
    model = fl.Sequential(fl.GRU(3, 4, rng=0), fl.Linear(4, 2, rng=0), fl.Activation("softmax"))
    rows = [np.ones((5, 3)), np.ones((2, 3))]
    ys, _ = model(rows)
    for row, y in zip(rows, ys, strict=True):
        assert (model(row)[0] == y).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swish",), "kind: expected one of sigmoid.*exponential, got 'swish'"),
        ((3,), "kind: expected one of"),
        (("relu", 1.0), "relu takes no parameter"),
        (("gelu", 1.0), "gelu takes no parameter"),
        (("elu", None, 2.0), "alpha: expected a number with beta"),
        (("elu", "a"), "alpha"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fl.Activation(*arguments)


def test_selu_at_zero():
    """As torch has it: the slope of the left side, λα."""
    layer = fl.Activation("selu")
    _, tape = layer.forward(np.zeros(3))
    np.testing.assert_allclose(
        layer.backward(tape, np.ones(3)).x, 1.0507009873554805 * 1.6732632423543772, rtol=1e-15
    )
