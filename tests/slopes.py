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
