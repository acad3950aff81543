"""Gradients by finite differences."""

import numpy as np

STEP = 1e-5  # truncation about STEP**2, rounding about 1e-16 / STEP


def slope(function, array):
    """Central difference of `function` in every element of `array`, which it perturbs."""
    result = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + STEP
        above = function()
        array[index] = value - STEP
        below = function()
        array[index] = value
        result[index] = (above - below) / (2 * STEP)
    return result


def assert_slope(actual, function, array, what=""):
    """`actual` is float64 and what finite differences find."""
    assert actual.dtype == np.float64, what
    expected = slope(function, array)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8, err_msg=what)


def assert_slope_along(actual, function, array, rng, what=""):
    """As `assert_slope`, in one random direction, and of fourth order for functions that bend."""
    assert actual.dtype == np.float64, what
    assert actual.shape == array.shape, what
    step, direction, start = STEP / 5, rng.standard_normal(array.shape), array.copy()

    def at(steps):
        array[...] = start + steps * step * direction
        return function()

    expected = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    array[...] = start
    tolerance = 1e-7 * np.abs(actual * direction).sum() + 1e-8
    np.testing.assert_allclose(np.vdot(actual, direction), expected, 0, tolerance, err_msg=what)
