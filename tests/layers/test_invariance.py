"""Same row, same bits: what else is in the batch, or how a call is cut, changes nothing.

The reference multiplies with BLAS, which makes no such promise: there, near is enough.
"""

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from random_layers import each, example, parts

import fastlstm as fl

SIZES = [
    {"T": 9, "B": 14, "I": 3, "H": 5},
    {"T": 6, "B": 7, "I": 20, "H": 33},
    {"T": 5, "B": 19, "I": 65, "H": 96},
    {"T": 8, "B": 3, "I": 1, "H": 40, "proj_size": 7},
    {"T": 9, "B": 14, "I": 3, "H": 5, "kind": "GRU"},
    {"T": 6, "B": 7, "I": 20, "H": 33, "kind": "GRU"},
    {"T": 5, "B": 19, "I": 65, "H": 96, "kind": "GRU"},
    {"T": 8, "B": 7, "I": 5, "H": 40, "kind": "GRU", "linear_before_reset": False},
    {"T": 5, "B": 19, "I": 65, "H": 96, "kind": "GRU", "activations": ("elu", "softsign")},
    {"T": 9, "B": 14, "I": 3, "H": 5, "kind": "RNN"},
    {"T": 5, "B": 19, "I": 65, "H": 96, "kind": "RNN", "nonlinearity": "relu"},
]
LAYERS = [{}, {"kind": "GRU"}, {"kind": "GRU", "linear_before_reset": False}, {"kind": "RNN"}]


@pytest.fixture(params=SIZES, ids=str)
def case(kernels, dtype, rng, request):
    return example(rng, **request.param, dtype=dtype)


@pytest.fixture(params=LAYERS, ids=str)
def stack(kernels, dtype, rng, request):
    options = {"B": 11, "H": 21, "num_layers": 2, "bidirectional": True, "dtype": dtype}
    return example(rng, **options, **request.param)


@pytest.fixture
def same(kernels, dtype):
    def check(actual, expected, what=""):
        if kernels == "reference":
            assert_close(actual, expected, dtype, what)
        else:
            assert_same_bits(actual, expected, what)

    return check


def rows_of(state, rows):
    return each(lambda part: part[:, rows], state)


def same_state(same, actual, expected, what=""):
    for pair in zip(parts(actual), parts(expected), strict=True):
        same(*pair, what)


def test_batch_size(case, same):
    y, state = case()
    B = y.shape[1]
    for rows in [slice(b, b + 1) for b in range(B)] + [slice(0, n) for n in range(2, B)]:
        few, few_state = case.lstm(case.x[:, rows], rows_of(case.state, rows))
        same(few, y[:, rows], rows)
        same_state(same, few_state, rows_of(state, rows), rows)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_more_than_a_cache_holds(compiled, kind, rng):
    """Many rows of wide layers, whose products are computed in parts."""
    T, B, I, H = 2, 83, 700, 720
    layer = getattr(fl, kind)(I, H, rng=0)
    x, dy = (rng.standard_normal((T, B, n)).astype(np.float32) for n in (I, H))
    (y, _), tape = layer.forward(x)
    dx = layer.backward(tape, dy).x
    for rows in (slice(0, 1), slice(40, 47), slice(80, 83)):
        (few, _), tape = layer.forward(x[:, rows])
        assert_same_bits(few, y[:, rows], rows)
        assert_same_bits(layer(x[:, rows])[0], y[:, rows], rows)
        assert_same_bits(layer.backward(tape, dy[:, rows]).x, dx[:, rows], rows)


def test_without_a_batch_axis(case, same):
    y, _ = case()
    single, _ = case.lstm(case.x[:, 2], rows_of(case.state, 2))
    same(single, y[:, 2])


def test_neighbors(case, same, rng):
    y, _ = case()
    order = rng.permutation(y.shape[1])
    moved, _ = case.lstm(case.x[:, order], rows_of(case.state, order))
    same(moved, y[:, order])
    x = rng.standard_normal(case.x.shape).astype(case.x.dtype) * 100
    x[:, 1] = case.x[:, 1]
    other, _ = case.lstm(x, case.state)
    same(other[:, 1], y[:, 1])


def test_padding(stack, same, rng):
    T, B = stack.x.shape[:2]
    lengths = rng.integers(1, T + 1, B)
    padded = np.full((T + 3, B, 3), np.nan, stack.x.dtype)
    for b, length in enumerate(lengths):
        padded[:length, b] = stack.x[:length, b]
    y, state = stack.lstm(padded, stack.state, lengths=lengths)
    for b, length in enumerate(lengths):
        alone, state1 = stack.lstm(stack.x[:length, b : b + 1], rows_of(stack.state, [b]))
        same(y[:length, b : b + 1], alone, b)
        same_state(same, rows_of(state, [b]), state1, b)


@pytest.mark.parametrize("cuts", [[1], [4], [1, 2, 3, 4], [2, 2, 5]], ids=str)
def test_chunks_that_carry_the_state(case, same, cuts):
    y, state = case()
    carried, parts = case.state, []
    for chunk in np.split(case.x, cuts):
        part, carried = case.lstm(chunk, carried)
        parts.append(part)
    same(np.concatenate(parts), y)
    same_state(same, carried, state)


def test_a_reset_is_a_fresh_start(case, same):
    resets = np.zeros(case.x.shape[:2], bool)
    resets[2, ::2] = True
    y, _ = case.lstm(case.x, case.state, resets=resets)
    whole, _ = case()
    fresh, _ = case.lstm(case.x[2:])
    same(y[:, 1::2], whole[:, 1::2])
    same(y[2:, ::2], fresh[:, ::2])


@pytest.mark.usefixtures("share_all_work")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2, "lengths": True, "resets": True}, {"B": 1}],
    ids=str,
)
def test_threads(kernels, dtype, rng, same, options, layer):
    sizes = {"T": 50, "B": 11, "I": 65, "H": 97, "dtype": dtype}
    case = example(rng, **sizes | options | layer)
    y, state = case(threads=1)
    for threads in (2, 3):
        split, split_state = case(threads=threads)
        same(split, y)
        same_state(same, split_state, state)


@pytest.mark.usefixtures("share_all_work")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("options", [{}, {"lengths": True, "resets": True}, {"B": 1}], ids=str)
def test_threads_in_backward(kernels, dtype, rng, same, options, layer):
    sizes = {"T": 9, "B": 7, "I": 5, "H": 21, "bidirectional": True, "dtype": dtype}
    case = example(rng, **sizes | options | layer)
    results = []
    for threads in (1, 3):
        (y, state), tape = case.forward(threads=threads)
        grads = case.lstm.backward(tape, y, state, threads=threads)
        states = zip("hc", parts(grads.state), strict=False)
        results.append({"x": grads.x, **dict(states), **grads.params})
    for name, expected in results[0].items():
        same(results[1][name], expected, name)


@pytest.mark.usefixtures("share_all_work")
def test_set_num_threads(kernels, rng, same, dtype):
    case = example(rng, T=50, B=11, I=65, H=97, dtype=dtype)
    before = fl.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            fl.set_num_threads(threads)
            results.append(case()[0])
    finally:
        fl.set_num_threads(before)
    same(*results)


def strided(x):
    """The values of x in other memory layouts."""
    T, B, I = x.shape
    yield "batch first", np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    yield "features first", np.asfortranarray(x)
    yield "backwards", x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    wide = np.full((2 * T, 3 * B, 2 * I), np.nan, x.dtype)
    wide[::2, ::3, ::2] = x
    yield "every other", wide[::2, ::3, ::2]
    shifted = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    yield "unaligned", shifted


def test_strides(case, same):
    y, _ = case()
    for name, x in strided(case.x):
        same(case.lstm(x, case.state)[0], y, name)
        state = each(np.asfortranarray, case.state)
        same(case.lstm(x, state)[0], y, name)


def test_broadcast_rows_are_equal(case, same):
    x = np.broadcast_to(case.x[:, :1], case.x.shape)
    y, _ = case.lstm(x)
    for row in range(1, y.shape[1]):
        same(y[:, row], y[:, 0])


def test_training_computes_what_inference_does(case, stack, same):
    for one in (case, stack):
        y, state = one()
        (trained, trained_state), _ = one.forward()
        same(trained, y)
        same_state(same, trained_state, state)


def test_repeated_calls(stack, same):
    same(stack()[0], stack()[0])
    results = []
    for _ in range(2):
        (y, _), tape = stack.forward()
        results.append(stack.lstm.backward(tape, y))
    for name in results[0].params:
        same(results[0].params[name], results[1].params[name], name)
