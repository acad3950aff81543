"""fl.LSTM against the oracle, and every form that a call takes."""

import copy

import numpy as np
import pytest
from compare import assert_close, assert_same_bits, assert_same_result
from oracle import lstm as oracle
from random_layers import OPTIONS, example

import fastlstm as fl

SHAPES = [{}, {"T": 4, "B": 1, "I": 2, "H": 19}, {"T": 1, "B": 6, "I": 17, "H": 3}]
TIMING = {
    "all steps": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "lengths and resets": {"lengths": True, "resets": True},
}


@pytest.mark.parametrize("timing", TIMING.values(), ids=TIMING)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_oracle(kernels, dtype, rng, shape, options, timing):
    case = example(rng, **shape, **options, **timing, dtype=dtype)
    y, (h, c) = case()
    expected = oracle(
        {name: array.tolist() for name, array in case.lstm.state_dict().items()},
        case.x.tolist(),
        case.state[0].tolist(),
        case.state[1].tolist(),
        **{name: array.tolist() for name, array in case.options.items()},
    )
    for name, array, truth in zip("yhc", (y, h, c), expected, strict=True):
        truth = np.array(truth)
        assert array.shape == truth.shape, name
        assert_close(array, truth, dtype, name)


def test_zero_is_the_default_state(kernels, rng):
    case = example(rng, num_layers=2)
    zeros = tuple(np.zeros_like(part) for part in case.state)
    assert_same_result(case.lstm(case.x), case.lstm(case.x, zeros))


def test_steps_past_the_end(kernels, rng):
    """Exact zeros out, and the state as the last valid step left it."""
    case = example(rng, num_layers=2, bidirectional=True)
    lengths = np.array([3, 0, 7, 1, 5])
    y, (h, c) = case.lstm(case.x, case.state, lengths=lengths)
    for row, length in enumerate(lengths):
        assert_same_bits(y[length:, row], np.zeros_like(y[length:, row]))
        if length:
            np.testing.assert_array_equal(h[2, row], y[length - 1, row, :4])
            np.testing.assert_array_equal(h[3, row], y[0, row, 4:])
    assert_same_bits(h[:, 1], case.state[0][:, 1])
    assert_same_bits(c[:, 1], case.state[1][:, 1])


def test_full_lengths_and_no_resets_change_nothing(compiled, rng):
    case = example(rng, num_layers=2, bidirectional=True)
    options = {"lengths": np.full(5, 7), "resets": np.zeros((7, 5), bool)}
    assert_same_result(case.lstm(case.x, case.state, **options), case())


def test_lengths_may_be_any_integers(kernels, rng):
    case = example(rng)
    expected = case.lstm(case.x, lengths=np.array([3, 0, 7, 1, 5]))
    for lengths in ([3, 0, 7, 1, 5], np.array([3, 0, 7, 1, 5], np.uint8)):
        assert_same_result(case.lstm(case.x, lengths=lengths), expected)


@pytest.mark.parametrize("lengths", [False, True], ids=["", "lengths"])
def test_batch_first(kernels, rng, lengths):
    plain = example(rng, bidirectional=True, lengths=lengths, resets=True)
    other = fl.LSTM(3, 4, bidirectional=True, batch_first=True)
    other.load_state_dict(plain.lstm.state_dict())
    y, state = plain()
    options = plain.options | {"resets": plain.options["resets"].T}
    x = plain.x.transpose(1, 0, 2)
    actual_y, actual_state = other(x, plain.state, **options)
    assert actual_y.shape == (5, 7, 8)
    assert_same_result((actual_y.transpose(1, 0, 2), actual_state), (y, state))
    (trained, _), tape = other.forward(x, plain.state, **options)
    grads, expected = other.backward(tape, trained), plain.lstm.backward(plain.forward()[1], y)
    np.testing.assert_allclose(grads.x, expected.x.transpose(1, 0, 2), rtol=1e-5, atol=1e-6)


def test_one_sequence_without_a_batch_axis(kernels, rng):
    case = example(rng, B=1, num_layers=2, bidirectional=True, proj_size=2)
    flat_state = tuple(part[:, 0] for part in case.state)
    y, (h, c) = case.lstm(case.x[:, 0], flat_state)
    assert (y.shape, h.shape, c.shape) == ((7, 4), (4, 2), (4, 4))
    expected_y, (expected_h, expected_c) = case()
    assert_same_result((y, (h, c)), (expected_y[:, 0], (expected_h[:, 0], expected_c[:, 0])))


@pytest.mark.parametrize("batch_first", [False, True])
def test_list_of_sequences(kernels, rng, batch_first):
    case = example(rng, num_layers=2, bidirectional=True, batch_first=batch_first)
    lengths = [3, 1, 7, 0, 5]
    sequences = [case.x[:length, row] for row, length in enumerate(lengths)]
    y, (h, c) = case.lstm(sequences, case.state)
    assert isinstance(y, list)
    x = case.x.transpose(1, 0, 2) if batch_first else case.x
    expected_y, state = case.lstm(x, case.state, lengths=lengths)
    if batch_first:
        expected_y = expected_y.transpose(1, 0, 2)
    for row, length in enumerate(lengths):
        assert_same_bits(y[row], expected_y[:length, row])
    assert_same_result((h, (h, c)), (h, state))


def test_out(kernels, rng):
    case = example(rng, num_layers=2, bidirectional=True, lengths=True)
    expected = case()
    out = np.full_like(expected[0], np.nan)
    y, state = case(out=out)
    assert y is out
    assert_same_result((y, state), expected)


@pytest.mark.parametrize("layers", [1, 2])
def test_out_may_be_any_view(kernels, rng, layers):
    case = example(rng, num_layers=layers, lengths=True)
    expected = case()
    for out in (
        np.full((5, 7, 4), np.nan, np.float32).transpose(1, 0, 2),
        np.full((7, 5, 8), np.nan, np.float32)[:, :, ::2],
        np.full((7, 5, 4), np.nan, np.float32)[::-1],
    ):
        y, state = case(out=out)
        assert np.shares_memory(y, out)
        assert_same_result((out, state), expected)


@pytest.mark.parametrize("shift", [0, 1])
def test_out_over_the_input(kernels, rng, shift):
    """Either the right result or an error, never a sequence that overwrites itself."""
    case = example(rng, I=8, bidirectional=True, lengths=True)
    expected = case()
    memory = np.zeros((8, 5, 8), np.float32)
    x, out = memory[:7], memory[shift : 7 + shift]
    x[...] = case.x
    try:
        actual = case.lstm(x, case.state, **case.options, out=out)
    except ValueError as error:
        assert "out" in str(error)  # noqa: PT017
        np.testing.assert_array_equal(x, case.x)
    else:
        assert_same_result(actual, expected)


def test_out_over_the_state(kernels, rng):
    case = example(rng, bidirectional=True)
    expected = case()
    out = np.zeros((7, 5, 8), np.float32)
    h0 = out.reshape(-1)[: case.state[0].size].reshape(case.state[0].shape)
    h0[...] = case.state[0]
    assert_same_result(case.lstm(case.x, (h0, case.state[1]), out=out), expected)


def test_arguments_are_left_alone(kernels, rng):
    case = example(rng, num_layers=2, lengths=True, resets=True)
    before = copy.deepcopy((case.x, case.state, case.options))
    case()
    (y, _), tape = case.forward()
    dy = y.copy()
    dstate = tuple(np.ones_like(part) for part in case.state)
    case.lstm.backward(tape, dy, dstate)
    np.testing.assert_array_equal(case.x, before[0])
    np.testing.assert_array_equal(case.state, before[1])
    np.testing.assert_array_equal(dy, y)
    for part in dstate:
        assert (part == 1).all()
    for name, array in before[2].items():
        np.testing.assert_array_equal(case.options[name], array)


def test_results_do_not_share_memory(kernels, rng):
    case = example(rng, T=0)
    for _, state in (case(), case.forward()[0]):
        for part, given in zip(state, case.state, strict=True):
            assert not np.shares_memory(part, given)
    longer = example(rng)
    (y, (h, c)), (y2, (h2, c2)) = longer(), longer()
    for a, b in [(y, y2), (h, h2), (c, c2), (y, h)]:
        assert not np.shares_memory(a, b)


@pytest.mark.parametrize("threads", [None, 1, 2, 3, 99])
def test_threads(kernels, rng, threads):
    case = example(rng, num_layers=2, bidirectional=True, lengths=True)
    assert_same_result(case(threads=threads), case())


def test_cell_is_one_step(kernels, dtype, rng):
    case = example(rng, T=1, dtype=dtype)
    cell = fl.LSTMCell(3, 4, dtype=dtype)
    cell.load_state_dict(
        {name.removesuffix("_l0"): array for name, array in case.lstm.state_dict().items()}
    )
    h, c = cell(case.x[0], tuple(part[0] for part in case.state))
    _, (expected_h, expected_c) = case()
    assert_same_bits(h, expected_h[0])
    assert_same_bits(c, expected_c[0])
    h, c = cell(case.x[0, 2], tuple(part[0, 2] for part in case.state))
    assert h.shape == c.shape == (4,)
    assert_close(h, expected_h[0, 2], dtype)
