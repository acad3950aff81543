"""Steps of optimizers: builds and reference against loops over single numbers."""

import math

import numpy as np
import pytest

from fastlstm.kernels.arguments import Rule, Update

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
    """The arrays of a step; what it writes to is full of 7."""
    p, mean, square, velocity, g = rng.standard_normal((5, size)).astype(dtype)
    square = mean**2 + square**2  # so that square - mean² stays above 0
    old = [
        array if name in means else None
        for name, array in zip("msv", (mean, square, velocity), strict=True)
    ]
    new = [None if array is None else np.full_like(array, 7) for array in (p, *old)]
    return Update(p, *old, g, *new)


@pytest.mark.parametrize(("rule", "means"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", SIZES)
def test_by_loops(module, rng, dtype, rule, means, size):
    arrays = make(rng, dtype, size, means)
    before = [None if array is None else array.copy() for array in arrays[:5]]
    assert module.update(rule, arrays) is True
    for array, kept in zip(arrays, before, strict=False):
        assert array is kept is None or (array == kept).all()
    for k in range(size):
        old = [None if array is None else float(array[k]) for array in before]
        for array, expected in zip(arrays[5:], step(rule, *old), strict=True):
            if array is not None:
                tolerance = 2e-5 if dtype == np.float32 else 1e-12
                np.testing.assert_allclose(array[k], expected, tolerance, tolerance)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("size", SIZES[1:])
def test_gradients_that_are_not_finite(module, rng, dtype, value, size):
    arrays = make(rng, dtype, size)
    for place in {0, size // 2, size - 1}:
        kept, arrays.g[place] = arrays.g[place], value
        assert module.update(RULES["all"][0], arrays) is False
        arrays.g[place] = kept
    arrays.g[:] = np.finfo(dtype).max  # their sum is not finite
    assert module.update(RULES["plain"][0], arrays) is True


def test_subnormal_means_are_zero(build, dtype):
    """Means of gradients that stay zero would become subnormal, and their steps slow."""
    least = np.finfo(dtype).tiny
    old = np.array([least, least], dtype)
    new = np.full((3, 2), 7, dtype)
    g = np.zeros(2, dtype)
    build.update(Rule(1.0, beta1=0.5, eps=1.0), Update(g, old, None, None, g, *new[:2], None, None))
    np.testing.assert_array_equal(new[1], 0)
    assert old[0] * dtype.type(0.5) > 0  # the mode of the processor is as before


WRONG = {
    "a list": lambda a: a.tolist(),
    "another float": lambda a: a.astype("f8" if a.dtype == "f4" else "f4"),
    "swapped bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "gaps": lambda a: np.repeat(a, 2)[::2],
    "a number too few": lambda a: a[1:].copy(),
    "none": lambda a: None,
}


@pytest.mark.parametrize("field", Update._fields)
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_arrays_that_do_not_fit(build, rng, dtype, field, change):
    arrays, rule = make(rng, dtype, 19), RULES["all"][0]
    wrong = arrays._replace(**{field: change(getattr(arrays, field))})
    with pytest.raises(ValueError, match="arrays"):
        build.update(rule, wrong)
    for array in arrays[5:]:
        assert (array == 7).all()


def test_arrays_that_nobody_may_write(build, rng, dtype):
    arrays = make(rng, dtype, 19)
    arrays.new_square.flags.writeable = False
    for wrong in (arrays, arrays[:-1], list(arrays), None):
        with pytest.raises(ValueError, match="arrays"):
            build.update(RULES["all"][0], wrong)
    with pytest.raises(TypeError):
        build.update((0.1,), make(rng, dtype, 19))
