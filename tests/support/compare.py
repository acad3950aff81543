"""What "equal" means."""

import numpy as np

TWINS = {  # kernels that compute the same in another order: relative, absolute
    np.dtype(np.float32): (1e-5, 1e-6),
    np.dtype(np.float64): (1e-12, 1e-12),
}


def assert_close(actual, expected, dtype, what=""):
    """`actual` has `dtype` and equals `expected` within the tolerance for twins."""
    relative, absolute = TWINS[np.dtype(dtype)]
    assert actual.dtype == dtype, what
    np.testing.assert_allclose(actual, expected, rtol=relative, atol=absolute, err_msg=what)


def assert_gradients_close(actual, expected, dtype, name, slack=1):
    """As `assert_close`, but much may cancel in the sums that gradients are."""
    relative, absolute = (slack * tolerance for tolerance in TWINS[dtype])
    assert actual.dtype == dtype, name
    assert actual.shape == expected.shape, name
    absolute += relative * np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, relative, absolute, err_msg=name)


def assert_same_bits(actual, expected, what=""):
    """Equal down to the sign of a zero and the payload of a NaN."""
    assert actual.dtype == expected.dtype, what
    bits = f"u{actual.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(bits),
        np.ascontiguousarray(expected).view(bits),
        err_msg=what,
    )


def assert_same_result(actual, expected):
    """Two results y, state are equal to the bit."""
    (y, state), (expected_y, expected_state) = actual, expected
    assert_same_bits(y, expected_y, "y")
    assert type(state) is type(expected_state)
    if not isinstance(state, tuple):
        state, expected_state = (state,), (expected_state,)
    for name, a, b in zip("hc", state, expected_state, strict=False):
        assert_same_bits(a, b, name)
    assert len(state) == len(expected_state)


def assert_near(actual, expected, tolerance, what=""):
    """No element is off by more than `tolerance` times the largest of `expected`."""
    assert actual.shape == expected.shape, what
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest, err_msg=what)
