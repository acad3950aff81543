"""tanh and sigmoid over all that a float can hold."""

import numpy as np
import pytest

from fastlstm.kernels import load

STRIDE = 509  # a prime: every bit of the mantissa takes part


def tanh_truth(x):
    return np.tanh(x)


def sigmoid_truth(x):
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, decay) / (1 + decay)


TRUTHS = {"tanh": tanh_truth, "sigmoid": sigmoid_truth}


@pytest.fixture(params=TRUTHS)
def name(request):
    return request.param


@pytest.fixture
def activation(kernels, dtype, name):
    return getattr(load(kernels, "test")[dtype], name)


def assert_within_bounds(activation, name, x):
    """The promise of design.md §3: 8 ulp or 5e-7 in float32, 1e-15 in float64."""
    with np.errstate(all="ignore"):  # signalling NaNs, overflow on the way to 1
        y = activation(x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    finer, least, ulps = (np.float64, 5e-7, 8) if x.itemsize == 4 else (np.longdouble, 1e-15, 0)
    known = ~np.isnan(x)
    if not known.any():
        return
    x, y = x[known], y[known]
    truth = TRUTHS[name](x.astype(finer))
    bound = np.maximum(least, ulps * np.spacing(np.abs(truth).astype(x.dtype)))
    error = np.abs(y.astype(finer) - truth)
    worst = np.argmax(error - bound)
    assert error[worst] <= bound[worst], f"{name}({x[worst]!r}) = {y[worst]!r}, {truth[worst]!r}"
    assert np.abs(y).max() <= 1
    if name == "sigmoid":
        assert y.min() >= 0


def all_floats(start, stop, step):
    return np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


def dense_doubles(rng):
    everyday = np.linspace(-40, 40, 1_000_001)
    exponents = np.ldexp(rng.uniform(1, 2, 400_000), rng.integers(-1074, 1024, 400_000))
    edges = [0.0, 5e-324, 2.2e-308, np.finfo(np.float64).max, np.inf, np.nan]
    return np.concatenate([everyday, exponents, -exponents, edges, np.negative(edges)])


class TestAccuracy:
    def test_float32_every_upper_half(self, kernels, name):
        function = getattr(load(kernels, "test")[np.dtype(np.float32)], name)
        assert_within_bounds(function, name, all_floats(0, 2**32, 2**16))

    def test_float32_strided(self, kernels, name):
        function = getattr(load(kernels, "test")[np.dtype(np.float32)], name)
        for start in range(0, 2**32, 2**30):
            assert_within_bounds(function, name, all_floats(start, start + 2**30, STRIDE))

    @pytest.mark.slow
    def test_float32_every_value(self, kernels, name):
        function = getattr(load(kernels, "test")[np.dtype(np.float32)], name)
        for start in range(0, 2**32, 2**22):
            assert_within_bounds(function, name, all_floats(start, start + 2**22, 1))

    def test_float64(self, kernels, name, rng):
        function = getattr(load(kernels, "test")[np.dtype(np.float64)], name)
        assert_within_bounds(function, name, dense_doubles(rng))


def test_ends(activation, name, dtype):
    y = activation(np.array([-np.inf, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(y, [-1 if name == "tanh" else 0, 1, np.nan])


def test_middle(activation, name, dtype):
    y = activation(np.array([0.0, -0.0], dtype))
    np.testing.assert_array_equal(y, 0 if name == "tanh" else 0.5)
    if name == "tanh":
        np.testing.assert_array_equal(np.signbit(y), [False, True])


def test_tanh_is_odd(kernels, dtype, rng):
    tanh = load(kernels, "test")[dtype].tanh
    x = np.ldexp(rng.uniform(1, 2, 100_000), rng.integers(-100, 100, 100_000)).astype(dtype)
    np.testing.assert_array_equal(tanh(-x), -tanh(x))


def test_position_does_not_matter(compiled, name, dtype, rng):
    activation = getattr(load(compiled, "test")[dtype], name)
    x = rng.uniform(-5, 5, 100).astype(dtype)
    expected = activation(x)
    for length in (1, 2, 3, 7, 15, 16, 17, 33):
        np.testing.assert_array_equal(activation(x[:length]), expected[:length])


def test_empty(activation, dtype):
    assert activation(np.empty(0, dtype)).shape == (0,)
