"""Small calls take a short cut: the same results and errors as the long way."""

import numpy as np
import pytest
from compare import assert_same_bits
from examples import example

import fastlstm as fl
from fastlstm.layers import short


@pytest.fixture
def ways(monkeypatch):
    """A function that computes by the short cut and then by the long way."""

    def both(compute):
        by_short = compute()
        with monkeypatch.context() as patch:
            for name in ("call", "forward"):
                patch.setattr(short, name, lambda *_: None)
            return by_short, compute()

    return both


@pytest.fixture
def taken(monkeypatch):
    """The names of short cuts that gave a result."""
    names = []

    def watch(name, function):
        def watched(*arguments):
            result = function(*arguments)
            if result is not None:
                names.append(name)
            return result

        return watched

    for name in ("call", "forward", "backward"):
        monkeypatch.setattr(short, name, watch(name, getattr(short, name)))
    return names


def flat(result):
    """All arrays of a result, in order."""
    if isinstance(result, np.ndarray):
        return [result]
    return [array for part in result for array in flat(part)]


def assert_all_same(results):
    for actual, expected in zip(*map(flat, results), strict=True):
        assert_same_bits(actual, expected)
        assert actual.shape == expected.shape


def gradients(lstm, x, state, dy, dstate):
    result, tape = lstm.forward(x, state)
    grads = lstm.backward(tape, dy, dstate)
    assert list(grads.params) == list(lstm.parameters())
    return result, grads.x, grads.state, tuple(grads.params.values())


SHAPES = [(1, 1, 3, 5), (1, 4, 2, 17), (9, 1, 5, 40), (6, 3, 20, 33)]
OPTIONS = [{}, {"bias": False}, {"batch_first": True}, {"proj_size": 3}]


def arrays(rng, shape, dtype, options):
    T, B, I, H = shape
    case = example(rng, T, B, I, H, dtype=dtype, **options)
    first = options.get("batch_first", False)
    x = np.ascontiguousarray(case.x.swapaxes(0, 1)) if first else case.x
    dy = rng.standard_normal((*x.shape[:2], case.state[0].shape[2])).astype(dtype)
    dstate = tuple(rng.standard_normal(part.shape).astype(dtype) for part in case.state)
    return case.lstm, x, case.state, dy, dstate


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits(compiled, rng, dtype, ways, shape, options):
    lstm, x, state, dy, dstate = arrays(rng, shape, dtype, options)
    assert_all_same(ways(lambda: lstm(x, state)))
    assert_all_same(ways(lambda: gradients(lstm, x, state, dy, None)))
    assert_all_same(ways(lambda: gradients(lstm, x, state, dy, dstate)))


def test_same_bits_of_a_cell(compiled, rng, dtype, ways):
    cell = fl.LSTMCell(3, 21, dtype=dtype, rng=rng)
    x, h, c = (rng.standard_normal((4, size)).astype(dtype) for size in (3, 21, 21))
    assert_all_same(ways(lambda: cell(x, (h, c))))


def test_views(compiled, rng, dtype, ways):
    lstm, x, state, dy, _ = arrays(rng, (6, 3, 20, 33), dtype, {})
    wide = np.full((12, 6, 25), np.nan, dtype)
    wide[::2, 1::2, 3:23] = x
    some = wide[::2, 1::2, 3:23]
    assert_all_same((lstm(some, state), lstm(x, state)))
    assert_all_same(ways(lambda: gradients(lstm, some, state, dy[::-1], None)))


def test_they_are_taken(compiled, rng, dtype, taken):
    lstm, x, state, dy, dstate = arrays(rng, (6, 3, 20, 33), dtype, {})
    lstm(x, state)
    gradients(lstm, x, state, dy, dstate)
    assert taken == ["call", "call", "forward", "backward"]


def test_as_the_reference(compiled, rng, dtype):
    lstm, x, state, dy, dstate = arrays(rng, (6, 3, 20, 33), dtype, {})
    actual = gradients(lstm, x, state, dy, dstate)
    with fl.use_backend("reference"):
        expected = gradients(lstm, x, state, dy, dstate)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for a, b in zip(flat(actual), flat(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("name", ["x", "state", "dy", "dstate"])
def test_bad_input_is_named(kernels, rng, dtype, name):
    lstm, x, state, dy, dstate = arrays(rng, (6, 3, 20, 33), dtype, {})
    values = {"x": x, "state": state, "dy": dy, "dstate": dstate}
    for bad in (object(), dy[:, :, :-1], (dy, dy)):
        given = values | {name: bad}
        with pytest.raises((ValueError, TypeError), match=name):
            gradients(lstm, *given.values())


def test_the_result_is_the_callers_own(compiled, rng, dtype):
    lstm, x, state, _, _ = arrays(rng, (1, 2, 3, 5), dtype, {})
    y, (h, c) = lstm(x, state)
    kept = [array.copy() for array in (y, h, c)]
    for array in (y, h, c):
        assert array.flags.owndata
        assert array.flags.writeable
    lstm(-x, (c, h))
    for array, before in zip((y, h, c), kept, strict=True):
        assert_same_bits(array, before)


def test_subnormals_do_not_stay_flushed(compiled, rng, dtype):
    lstm, x, state, dy, _ = arrays(rng, (1, 2, 3, 5), dtype, {})
    gradients(lstm, x, state, dy, None)
    assert np.finfo(dtype).smallest_subnormal / dtype.type(1) > 0
