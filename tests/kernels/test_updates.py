"""Steps of optimizers: builds and reference against loops over single numbers."""

import math

import numpy as np
import pytest

from fastlstm.kernels import reference
from fastlstm.kernels.arguments import MOMENTS, Rule

RULES = {  # and the running means that each has
    "plain": (Rule(0.3), ""),
    "decay": (Rule(0.3, decay=0.2), ""),
    "shrink": (Rule(0.3, shrink=0.9), ""),
    "velocity": (Rule(0.1, momentum=0.7), "v"),
    "nesterov": (Rule(0.1, decay=0.2, momentum=0.7, nesterov=True), "v"),
    "mean, square": (Rule(0.1, 0.0, 0.95, beta1=0.6, beta2=0.8, eps=0.03), "ms"),
    "square": (Rule(0.1, beta2=0.8, eps=0.03), "s"),
    "all": (Rule(0.1, 0.2, 0.95, 0.6, 0.8, 0.03, 0.7, centered=True, nesterov=True), "msv"),
}
SIZES = (0, 1, 8, 19, 48)


def step(rule, p, mean, square, velocity, g):
    """New value and running means of one number, by `Rule`'s docstring."""
    d = g = g + rule.decay * p
    if mean is not None:
        mean = rule.beta1 * mean + (1 - rule.beta1) * g
        d = g if rule.centered else mean
    if square is not None:
        square = rule.beta2 * square + (1 - rule.beta2) * g * g
        variance = max(square - mean**2, 0.0) if rule.centered else square
        d /= math.sqrt(variance) + rule.eps
    if velocity is not None:
        velocity = rule.momentum * velocity + d
        d = d + rule.momentum * velocity if rule.nesterov else velocity
    return rule.shrink * p - rule.lr * d, mean, square, velocity


def make(rng, dtype, size, means="msv"):
    """p, its running means, and g."""
    p, mean, square, velocity, g = rng.standard_normal((5, size)).astype(dtype)
    square = mean**2 + square**2  # so that square - mean² stays above 0
    moments = tuple(
        array if name in means else None
        for name, array in zip("msv", (mean, square, velocity), strict=True)
    )
    return p, moments, g


@pytest.mark.parametrize(("rule", "means"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", SIZES)
def test_by_loops(module, rng, dtype, rule, means, size):
    p, moments, g = make(rng, dtype, size, means)
    given = p, *moments, g
    before = [None if array is None else array.copy() for array in given]
    new_p, new_moments = module.update(rule, p, moments, g)
    for array, copy in zip(given, before, strict=True):
        assert array is copy is None or (array == copy).all()
    for array, old in zip((new_p, *new_moments), given[:4], strict=True):
        assert array is old is None or (array.shape == (size,) and array.dtype == dtype)
    for k in range(size):
        old = [None if array is None else float(array[k]) for array in before]
        for array, expected in zip((new_p, *new_moments), step(rule, *old), strict=True):
            if array is not None:
                tolerance = 2e-5 if dtype == np.float32 else 1e-12
                np.testing.assert_allclose(array[k], expected, tolerance, tolerance)


def test_of_matrices(module, rng, dtype):
    """An array of several axes is read as its elements one after another."""
    p, moments, g = make(rng, dtype, 30)
    expected = module.update(RULES["all"][0], p, moments, g)
    fold = [array.reshape(2, 3, 5) for array in (p, *moments, g)]
    new_p, new_moments = module.update(RULES["all"][0], fold[0], tuple(fold[1:4]), fold[4])
    for array, flat in zip((new_p, *new_moments), (expected[0], *expected[1]), strict=True):
        assert array.shape == (2, 3, 5)
        np.testing.assert_array_equal(array.ravel(), flat)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("size", SIZES[1:])
def test_gradients_that_are_not_finite(module, rng, dtype, value, size):
    p, moments, g = make(rng, dtype, size)
    for place in {0, size // 2, size - 1}:
        kept, g[place] = g[place], value
        assert module.update(RULES["all"][0], p, moments, g) is None
        g[place] = kept
    g[:] = np.finfo(dtype).max  # their sum is not finite
    assert module.update(RULES["plain"][0], p, moments, g) is not None


def test_subnormal_means_are_zero(build, dtype):
    """Means of gradients that stay zero would become subnormal, and their steps slow."""
    least = np.finfo(dtype).tiny
    old = np.array([least, least], dtype)
    g = np.zeros(2, dtype)
    _, (mean, *_) = build.update(Rule(1.0, beta1=0.5, eps=1.0), g, (old, None, None), g)
    np.testing.assert_array_equal(mean, 0)
    assert old[0] * dtype.type(0.5) > 0  # the mode of the processor is as before


WRONG = {
    "a list": lambda a: a.tolist(),
    "another float": lambda a: a.astype("f8" if a.dtype == "f4" else "f4"),
    "swapped bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "gaps": lambda a: np.repeat(a, 2)[::2],
    "a number too few": lambda a: a[1:].copy(),
    "another axis": lambda a: a[None],
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit(build, rng, dtype, change):
    (p, moments, g), rule = make(rng, dtype, 19), RULES["all"][0]
    assert build.update(rule, p, moments, change(g)) is NotImplemented
    assert build.update(rule, p, moments, None) is NotImplemented
    for place in range(len(MOMENTS)):
        wrong = *moments[:place], change(moments[place]), *moments[place + 1 :]
        with pytest.raises(ValueError, match="moments"):
            build.update(rule, p, wrong, g)
    wrong = change(p)
    if not isinstance(wrong, np.ndarray) or not wrong.flags.carray or wrong.dtype != p.dtype:
        with pytest.raises(ValueError, match="p: "):
            build.update(rule, wrong, moments, g)


def test_arguments_that_are_not_tuples(build, rng, dtype):
    (p, moments, g), rule = make(rng, dtype, 19), RULES["all"][0]
    for wrong in (moments[:2], (*moments, None), list(moments), None):
        with pytest.raises(ValueError, match="moments"):
            build.update(rule, p, wrong, g)
    with pytest.raises(TypeError):
        build.update((0.1,), p, moments, g)


def test_gradients_of_another_form(rng):
    p, moments, g = make(rng, np.float32, 19)
    for wrong in (g.tolist(), g.astype("f8"), g[None], g[:1], None):
        assert reference.update(RULES["all"][0], p, moments, wrong) is NotImplemented
