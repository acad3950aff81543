"""Extremes that have a meaning: they work, and nothing leaks from one row to the next."""

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from random_layers import example, parts

import fastlstm as fl

LAYERS = [{}, {"kind": "GRU"}, {"kind": "GRU", "linear_before_reset": False}, {"kind": "RNN"}]
layers = pytest.mark.parametrize("layer", LAYERS, ids=str)


@pytest.fixture(params=LAYERS, ids=str)
def case(kernels, rng, dtype, request):
    return example(rng, num_layers=2, dtype=dtype, **request.param)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_bad_number_stays_in_its_row(case, value):
    expected, expected_state = case()
    case.x = case.x.astype(np.float64)
    case.x[3, 2, 1] = value
    y, state = case()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(y[:3], expected[:3])
    np.testing.assert_array_equal(y[:, others], expected[:, others])
    for part, expected_part in zip(parts(state), parts(expected_state), strict=True):
        np.testing.assert_array_equal(part[:, others], expected_part[:, others])
    if np.isnan(value):
        assert np.isnan(y[3:, 2]).all()
    else:
        assert (y[3, 2] != expected[3, 2]).any()
    (trained, _), tape = case.forward()
    np.testing.assert_array_equal(trained, y)
    grads = case.lstm.backward(tape, np.ones_like(y))
    assert np.isfinite(grads.x[:, others]).all()


@pytest.mark.parametrize("part", [0, 1], ids=["h", "c"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_number_in_the_state(case, part, value):
    expected, _ = case()
    parts(case.state)[min(part, len(parts(case.state)) - 1)][0, 2, 1] = value
    y, _ = case()
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(y[:, others], expected[:, others])
    if np.isnan(value):
        assert np.isnan(y[:, 2]).any()


def test_a_reset_cuts_a_nan_off(case):
    resets = np.zeros((7, 5), bool)
    resets[4, 2] = True
    expected, _ = case.lstm(case.x, case.state, resets=resets)
    parts(case.state)[0][0, 2] = np.nan
    y, _ = case.lstm(case.x, case.state, resets=resets)
    assert np.isnan(y[:4, 2]).all()
    np.testing.assert_array_equal(y[4:, 2], expected[4:, 2])


@pytest.mark.parametrize("value", [1e4, 1e30])
def test_saturation(kernels, dtype, value):
    """c counts up by one each step where every gate is wide open."""
    lstm = fl.LSTM(1, 5, dtype=dtype)
    ones = {name: np.ones_like(array) for name, array in lstm.state_dict().items()}
    lstm.load_state_dict(ones)
    y, (_, c) = lstm(np.full((9, 2, 1), value))
    np.testing.assert_array_equal(c, 9)
    np.testing.assert_allclose(y[:, 0, 0], np.tanh(np.arange(1, 10)), rtol=1e-6)
    y, (_, c) = lstm(np.full((9, 2, 1), -value), None)
    np.testing.assert_allclose(y, 0, atol=1e-30)
    np.testing.assert_allclose(c, 0, atol=1e-30)


@pytest.mark.parametrize("shape", [(0, 5), (7, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("options", [*LAYERS, {"bidirectional": True, "proj_size": 2}], ids=str)
def test_nothing_to_do(kernels, dtype, rng, shape, options):
    T, B = shape
    case = example(rng, T=T, B=B, num_layers=2, dtype=dtype, **options)
    y, state = case()
    assert y.shape == (T, B, 4)
    assert y.dtype == dtype
    for part, given in zip(parts(state), parts(case.state), strict=True):
        assert_same_bits(part, given)
    (y, state), tape = case.lstm.forward(
        case.x, case.state, lengths=np.zeros(B, int), resets=np.ones((T, B), bool)
    )
    grads = case.lstm.backward(tape, y, state)
    assert grads.x.shape == case.x.shape
    assert_same_bits(parts(grads.state)[0], parts(state)[0])
    for name, array in grads.params.items():
        assert (array == 0).all(), name


@layers
def test_every_length_zero(kernels, rng, layer):
    case = example(rng, bidirectional=True, **layer)
    y, state = case.lstm(case.x, case.state, lengths=np.zeros(5, int))
    assert (y == 0).all()
    for part, given in zip(parts(state), parts(case.state), strict=True):
        assert_same_bits(part, given)


@pytest.mark.parametrize("sequences", [[], [0], [0, 0], [0, 3]], ids=str)
def test_list_of_little(kernels, rng, sequences):
    lstm = fl.LSTM(3, 4, rng=rng)
    y, (h, c) = lstm([rng.standard_normal((length, 3)) for length in sequences])
    assert [part.shape for part in y] == [(length, 4) for length in sequences]
    assert h.shape == c.shape == (1, len(sequences), 4)


@layers
def test_sizes_of_one(kernels, dtype, rng, layer):
    case = example(rng, T=1, B=1, I=1, H=1, dtype=dtype, **layer)
    (y, state), tape = case.forward()
    for array in (y, *parts(state)):
        assert array.shape == (1, 1, 1)
    case.lstm.backward(tape, y)


@pytest.mark.parametrize(
    "dtype_of_x", [np.float16, ">f4", ">f8", np.longdouble, np.int8, np.uint64, ">i4", bool]
)
def test_other_dtypes_are_cast(kernels, rng, dtype_of_x):
    case = example(rng)
    x = rng.integers(0, 2, case.x.shape).astype(dtype_of_x)
    state = tuple(np.round(part).astype(">f8") for part in case.state)
    y, _ = case.lstm(x, state)
    plain = tuple(part.astype(np.float32) for part in state)
    assert_same_bits(y, case.lstm(x.astype(np.float32), plain)[0])


@layers
def test_read_only_input(kernels, rng, layer):
    case = example(rng, lengths=True, resets=True, **layer)
    expected, _ = case()
    for array in (case.x, *parts(case.state), *case.options.values()):
        array.flags.writeable = False
    assert_same_bits(case()[0], expected)
    (y, _), tape = case.forward()
    dy = np.ones_like(y)
    dy.flags.writeable = False
    case.lstm.backward(tape, dy, case.state)


@layers
def test_strided_lengths_and_resets(kernels, rng, layer):
    options = {"lengths": True, "resets": True, "num_layers": 2, "bidirectional": True}
    case = example(rng, **options, **layer)
    expected, _ = case()
    wide = {name: np.repeat(array, 2, axis=-1) for name, array in case.options.items()}
    case.options = {name: array[..., ::2] for name, array in wide.items()}
    assert_same_bits(case()[0], expected)
    case.options["lengths"] = case.options["lengths"].astype(">i2")
    assert_same_bits(case()[0], expected)


def test_nested_lists_are_sequences(kernels, rng):
    """A list is a list of sequences even where all are of one length."""
    case = example(rng)
    y, _ = case.lstm(case.x.transpose(1, 0, 2).tolist(), case.state)
    assert isinstance(y, list)
    assert_close(np.stack(y, axis=1), case()[0], np.float32)


def test_subclasses_and_array_likes(kernels, rng):
    case = example(rng)

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.asarray(case.x, dtype)

    expected, _ = case()
    assert_same_bits(case.lstm(Tensor(), case.state)[0], expected)
    matrix = case.x.view(type("Sub", (np.ndarray,), {}))
    y, _ = case.lstm(matrix, case.state)
    assert type(y) is np.ndarray
    assert_same_bits(y, expected)
