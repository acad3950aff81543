"""ONNX's activations and their slopes, against the mathematics in finer floats."""

import numpy as np
import pytest

from fastlstm.kernels import load
from fastlstm.kernels.reference.core.activations import Kind

CASES = [
    (Kind.SIGMOID, 0, 0),
    (Kind.TANH, 0, 0),
    (Kind.RELU, 0, 0),
    (Kind.AFFINE, -0.75, 0.5),
    (Kind.LEAKY_RELU, 0.25, 0),
    (Kind.LEAKY_RELU, -0.25, 0),
    (Kind.THRESHOLDED_RELU, 0.5, 0),
    (Kind.THRESHOLDED_RELU, -0.5, 0),
    (Kind.SCALED_TANH, 0.75, -0.5),
    (Kind.HARD_SIGMOID, 0.25, 0.5),
    (Kind.HARD_SIGMOID, -0.25, 0.25),
    (Kind.ELU, 0.75, 0),
    (Kind.ELU, -0.75, 0),
    (Kind.SOFTSIGN, 0, 0),
    (Kind.SOFTPLUS, 0, 0),
]


def truth(kind, a, b, x):
    """Value and slope, in x's own precision."""
    size, side, up = np.abs(x), x >= 0, x > 0
    decay = np.exp(-size)
    logistic = np.where(side, 1, decay) / (1 + decay)
    one, none = np.ones_like(x), np.zeros_like(x)
    line = a * x + b
    inside = (line > 0) & (line < 1)
    return {
        Kind.SIGMOID: lambda: (logistic, decay / (1 + decay) ** 2),
        Kind.TANH: lambda: (np.tanh(x), np.cosh(np.minimum(size, 1000)) ** -2.0),
        Kind.RELU: lambda: (np.where(side, x, 0), np.where(up, one, 0)),
        Kind.AFFINE: lambda: (line, a * one),
        Kind.LEAKY_RELU: lambda: (np.where(side, x, a * x), np.where(up, one, a)),
        Kind.THRESHOLDED_RELU: lambda: (np.where(x >= a, x, 0), np.where(x >= a, one, 0)),
        Kind.SCALED_TANH: lambda: (
            a * np.tanh(b * x),
            a * b * np.cosh(np.minimum(np.abs(b * x), 1000)) ** -2.0,
        ),
        Kind.HARD_SIGMOID: lambda: (
            np.where(inside, line, np.where(line >= 1, one, 0)),
            np.where(inside, a * one, none),
        ),
        Kind.ELU: lambda: (np.where(side, x, a * np.expm1(-size)), np.where(up, 1, a * decay)),
        Kind.SOFTSIGN: lambda: (
            np.where(np.isinf(x), np.sign(x), x / np.where(np.isinf(x), 1, 1 + size)),
            (1 + size) ** -2.0,
        ),
        Kind.SOFTPLUS: lambda: (np.where(side, x, 0) + np.log1p(decay), logistic),
    }[kind]()


def points(dtype, rng):
    everyday = rng.uniform(-30, 30, 200_001)
    tiny, huge = np.finfo(dtype).minexp + 60, np.finfo(dtype).maxexp - 4
    exponents = np.ldexp(rng.uniform(1, 2, 50_000), rng.integers(tiny, huge, 50_000))
    edges = [0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0, np.inf, -np.inf]
    return np.concatenate([everyday, everyday / 10, exponents, -exponents, edges]).astype(dtype)


@pytest.mark.parametrize(("kind", "alpha", "beta"), CASES, ids=str)
def test_value_and_slope(kernels, dtype, rng, kind, alpha, beta):
    module = load(kernels, "test")[dtype]
    x = points(dtype, rng)
    finer, least, ulps = (np.float64, 5e-7, 8) if x.itemsize == 4 else (np.longdouble, 1e-15, 4)
    with np.errstate(all="ignore"):
        expected = truth(kind, alpha, beta, x.astype(finer))
    functions = (module.activate, module.activation_slope)
    for function, exact, times in zip(functions, expected, (1, 2), strict=True):
        y = function(kind, alpha, beta, x)
        assert y.dtype == dtype
        infinite = np.isinf(exact)
        np.testing.assert_array_equal(y[infinite], exact[infinite])
        x_known, y, exact = (array[~infinite] for array in (x, y, exact))
        bound = times * np.maximum(least, ulps * np.spacing(np.abs(exact).astype(dtype)))
        error = np.abs(y - exact)
        worst = np.argmax(error - bound)
        assert error[worst] <= bound[worst], (
            f"at {x_known[worst]!r}: {y[worst]!r}, {exact[worst]!r}"
        )


def test_slopes_at_corners_are_those_of_torch(kernels, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    slope_of = load(kernels, "test")[dtype].activation_slope
    x = np.array([-3, 0, 3, -0.0, np.nan], dtype)
    for kind, alpha, beta, function in [
        (Kind.RELU, 0, 0, functional.relu),
        (Kind.LEAKY_RELU, 0.125, 0, lambda x: functional.leaky_relu(x, 0.125)),
        (Kind.ELU, 0.75, 0, lambda x: functional.elu(x, 0.75)),
    ]:
        at = torch.tensor(x, requires_grad=True)
        function(at)[:4].sum().backward()
        slopes = slope_of(kind, alpha, beta, x)
        np.testing.assert_allclose(slopes[:4], at.grad[:4], rtol=1e-6, err_msg=str(kind))
        assert slopes[4] == 1
    # A line through (-2, 0) and (2, 1).
    slopes = slope_of(Kind.HARD_SIGMOID, 0.25, 0.5, np.array([-2, 2, 1.5, -1.5], dtype))
    np.testing.assert_array_equal(slopes, [0, 0, 0.25, 0.25])


@pytest.mark.parametrize(("kind", "alpha", "beta"), CASES, ids=str)
def test_nan_stays_nan(kernels, dtype, kind, alpha, beta):
    x = np.array([1, np.nan, -1], dtype)
    y = load(kernels, "test")[dtype].activate(kind, alpha, beta, x)
    np.testing.assert_array_equal(np.isnan(y), [False, True, False])


@pytest.mark.parametrize(("kind", "alpha", "beta"), CASES, ids=str)
def test_position_does_not_matter(compiled, dtype, rng, kind, alpha, beta):
    module = load(compiled, "test")[dtype]
    x = rng.uniform(-5, 5, 100).astype(dtype)
    for function in (module.activate, module.activation_slope):
        expected = function(kind, alpha, beta, x)
        for length in (0, 1, 2, 3, 7, 15, 16, 17, 33):
            np.testing.assert_array_equal(
                function(kind, alpha, beta, x[:length]), expected[:length]
            )


@pytest.mark.parametrize("kind", [-1, 11])
def test_no_such_kind(kernels, dtype, kind):
    module = load(kernels, "test")[dtype]
    for function in (module.activate, module.activation_slope):
        with pytest.raises(ValueError, match="kind"):
            function(kind, 0, 0, np.zeros(3, dtype))
