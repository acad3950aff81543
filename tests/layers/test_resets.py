"""A reset says that a sequence begins: each has the outputs and the gradients that it has alone."""

from itertools import pairwise

import numpy as np
import pytest
from compare import assert_close, assert_gradients_close, assert_same_bits, assert_same_result
from random_layers import GRU_AND_RNN, VARIANTS, each, example, random_state

import fastlstm as fl

T, B = 9, 5
LAYERS = {
    "LSTM": {},
    "projected": {"proj_size": 2},
    "LSTM, wide": {"I": 20, "H": 70},
    "GRU, wide": {"kind": "GRU", "I": 20, "H": 70},
    **VARIANTS,
    **GRU_AND_RNN,
}
del LAYERS["elu"]  # its values grow to 1e29
# Training draws other random numbers for other steps.
TRAINED = {
    name: options
    for name, options in LAYERS.items()
    if not {"zoneout", "recurrent_dropout"} & options.keys()
}


def two_sequences_in_a_row():
    resets = np.zeros((T, B), bool)
    resets[5] = True
    return {"resets": resets}


def many_sequences():
    """Some begin at the first step, at the last, at every step, and in the padding."""
    resets = np.random.default_rng(3).random((T, B)) < 0.3
    resets[0, ::2], resets[8, 1], resets[:, 3] = True, True, True
    return {"resets": resets}


def many_in_ragged_rows():
    """Also right after a row's end."""
    lengths = np.array([6, 9, 0, 7, 1])
    walk = many_sequences() | {"lengths": lengths}
    walk["resets"][lengths[[0, 3, 4]], [0, 3, 4]] = True
    return walk


WALKS = [two_sequences_in_a_row, many_sequences, many_in_ragged_rows]


@pytest.fixture(params=WALKS, ids=lambda walk: walk.__name__)
def walk(request):
    return request.param()


@pytest.fixture
def case(kernels, dtype, rng, walk, request):
    """A layer in both directions; the initial state and its gradient are not zero."""
    options = {"bidirectional": True, "num_layers": 2} | request.param
    if isinstance(options.get("H"), list):
        del options["num_layers"]
    case = example(rng, T, B, dtype=dtype, **options)
    case.options = walk
    return case


def over(function, *states):
    """`function` of the arrays of states in one form."""
    if isinstance(states[0], (tuple, list)):
        return type(states[0])(over(function, *parts) for parts in zip(*states, strict=True))
    return function(*states)


def before_resets(case, state):
    """An initial state or its gradient: in the forward direction, a reset at 0 makes it zero."""
    begins = case.options["resets"][0] & (np.asarray(case.options.get("lengths", [T] * B)) > 0)

    def part(array):
        own = array.copy()
        own[::2, begins] = 0
        return own

    return over(part, state)


def of_row(state, row, forward, reverse):
    """One row of a state, and zeros in a direction to which it is not given."""

    def part(array):
        own = np.zeros_like(array[:, [row]])
        for direction, is_given in enumerate((forward, reverse)):
            if is_given:
                own[direction::2] = array[direction::2, [row]]
        return own

    return over(part, state)


def put_row(state, row, own, forward, reverse):
    """Store `own` as one row of a state, in the directions whose state it is."""

    def put(array, part):
        if forward:
            array[::2, row] = part[::2, 0]
        if reverse:
            array[1::2, row] = part[1::2, 0]

    over(put, state, own)


def sequences(case):
    """(row, first step, step after the last) of each sequence."""
    lengths = case.options.get("lengths", [T] * B)
    for row, length in enumerate(lengths):
        begins = np.flatnonzero(case.options["resets"][:length, row])
        borders = sorted({0, length, *begins})
        for first, end in pairwise(borders):
            yield row, first, end, first == 0, end == length


def alone(case):
    """The result, from calls with one sequence each."""
    y, final = np.zeros_like(case()[0]), over(np.copy, case.state)
    initial = before_resets(case, case.state)
    for row, first, end, is_first, is_last in sequences(case):
        state = of_row(initial, row, is_first, is_last)
        own, own_final = case.layer(case.x[first:end, [row]], state)
        y[first:end, [row]] = own
        put_row(final, row, own_final, is_last, is_first)
    return y, final


@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS, indirect=True)
def test_results(case, kernels, dtype):
    """To the bit, but in the reference, whose products do not promise it."""
    (y, state), (expected_y, expected_state) = case(), alone(case)
    if kernels == "reference":
        assert_close(y, expected_y, dtype, "y")
        over(lambda *pair: assert_close(*pair, dtype, "state"), state, expected_state)
    else:
        assert_same_bits(y, expected_y, "y")
        over(assert_same_bits, state, expected_state)


@pytest.mark.parametrize("case", TRAINED.values(), ids=TRAINED, indirect=True)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("share_all_work")
def test_gradients(case, rng, dtype, threads):
    (y, _), tape = case.forward(threads=threads)
    dy, dstate = rng.standard_normal(y.shape), random_state(rng, case.layer, B)
    grads = case.layer.backward(tape, dy, dstate, threads=threads)

    expected_y, dx, d_initial = np.zeros_like(y), np.zeros_like(case.x), over(np.copy, dstate)
    initial = before_resets(case, case.state)
    params = {name: np.zeros_like(array) for name, array in grads.params.items()}
    for row, first, end, is_first, is_last in sequences(case):
        steps = slice(first, end), [row]
        state = of_row(initial, row, is_first, is_last)
        (expected_y[steps], _), tape = case.layer.forward(case.x[steps], state)
        own = case.layer.backward(tape, dy[steps], of_row(dstate, row, is_last, is_first))
        dx[steps] = own.x
        put_row(d_initial, row, own.state, is_first, is_last)
        for name, gradient in own.params.items():
            params[name] += gradient
    d_initial = before_resets(case, d_initial)
    assert_close(y, expected_y, dtype, "y")
    assert_gradients_close(grads.x, dx, dtype, "x", slack=5)
    over(lambda *pair: assert_gradients_close(*pair, dtype, "state", 5), grads.state, d_initial)
    for name, gradient in params.items():
        assert_gradients_close(grads.params[name], gradient, dtype, name, slack=5)


@pytest.mark.parametrize("batch_first", [False, True])
def test_lists(kernels, rng, batch_first):
    case = example(rng, T, B, bidirectional=True, num_layers=2, batch_first=batch_first)
    case.options = many_in_ragged_rows()
    x, resets = (
        [array[:length, row] for row, length in enumerate(case.options["lengths"])]
        for array in (case.x, case.options["resets"])
    )
    ys, _ = case.layer(x, case.state, resets=resets)
    for row, y in enumerate(ys):
        own = each(lambda part, row=row: part[:, row], case.state)
        expected, _ = case.layer(x[row], own, resets=resets[row])
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int8, np.uint64, list])
def test_numbers_0_and_1(kernels, rng, kind):
    case = example(rng, T, B, bidirectional=True)
    case.options = many_sequences()
    expected, resets = case(), case.options["resets"]
    case.options = {"resets": resets.astype(int).tolist() if kind is list else resets.astype(kind)}
    assert_same_result(case(), expected)


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan, np.inf])
def test_other_numbers(kernels, value):
    lstm, resets = fl.LSTM(3, 4), np.zeros((T, B))
    resets[3, 1] = value
    with pytest.raises(ValueError, match=f"resets: expected only 0 and 1, got {float(value)}"):
        lstm(np.ones((T, B, 3)), resets=resets)
    with pytest.raises(ValueError, match=r"resets\[1\]: expected only 0 and 1"):
        lstm([np.ones((T, 3))] * B, resets=list(resets.T))
