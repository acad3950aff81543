"""fl.LSTM against the oracle, and all of its interface that is not an error."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from examples import example
from oracle import lstm as oracle

import fastlstm as fl

SHAPES = [{}, {"T": 4, "B": 1, "I": 2, "H": 19}, {"T": 1, "B": 6, "I": 17, "H": 3}]
OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "three layers": {"num_layers": 3},
    "both directions": {"bidirectional": True},
    "projected": {"proj_size": 2},
    "all": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
}
TIMING = {
    "all steps": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "lengths and resets": {"lengths": True, "resets": True},
}


def by_id(table):
    return pytest.mark.parametrize("options", table.values(), ids=table)


def assert_same_result(actual, expected):
    (y, (h, c)), (expected_y, (expected_h, expected_c)) = actual, expected
    for name, a, b in [("y", y, expected_y), ("h", h, expected_h), ("c", c, expected_c)]:
        assert_same_bits(a, b, name)


@pytest.mark.parametrize("timing", TIMING.values(), ids=TIMING)
@by_id(OPTIONS)
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


def test_reverse_reset_is_before_the_step_in_walking_order(kernels, rng):
    """Walking back, a reset at t cuts what came from t + 1."""
    case = example(rng, B=1, bidirectional=True, dtype=np.float64)
    resets = np.zeros((7, 1), bool)
    resets[3] = True
    (whole, _), (head, _) = case.lstm(case.x, resets=resets), case.lstm(case.x[:4])
    np.testing.assert_allclose(whole[:4, :, 4:], head[:, :, 4:], rtol=1e-12)


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
    case = example(rng, num_layers=2, H=4)
    expected = case()
    out = np.zeros((7, 5, 4), np.float32)
    out[:2] = case.state[0]
    assert_same_result(case.lstm(case.x, (out[:2], case.state[1]), out=out), expected)


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


def test_a_seed_decides_the_weights():
    first, second = (fl.LSTM(3, 4, num_layers=2, rng=7).state_dict() for _ in range(2))
    for name, array in first.items():
        assert_same_bits(array, second[name], name)
    other = fl.LSTM(3, 4, num_layers=2, rng=8)
    assert (other.weight_ih_l0 != first["weight_ih_l0"]).all()


def test_initial_weights_follow_torch(rng):
    lstm = fl.LSTM(30, 25, num_layers=2, proj_size=20, rng=rng)
    for name, array in lstm.state_dict().items():
        assert np.abs(array).max() <= 1 / 5, name
        assert np.abs(array).max() > 0.9 / 5, name
        assert abs(array.mean()) < 0.05, name


@pytest.mark.parametrize("bias", [0.0, 1.0, -2.5])
def test_forget_bias(rng, bias):
    lstm = fl.LSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=bias, rng=rng)
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = getattr(lstm, "bias_ih" + suffix) + getattr(lstm, "bias_hh" + suffix)
        np.testing.assert_allclose(total[4:8], bias)
        assert (total[:4] != bias).all()
        assert (total[8:] != bias).all()


def test_names_and_shapes_are_those_of_torch():
    lstm = fl.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    shapes = {name: array.shape for name, array in lstm.state_dict().items()}
    expected = {}
    for layer, inputs in enumerate([3, 4]):
        for side in ("", "_reverse"):
            suffix = f"_l{layer}{side}"
            expected |= {
                "weight_ih" + suffix: (20, inputs),
                "weight_hh" + suffix: (20, 2),
                "bias_ih" + suffix: (20,),
                "bias_hh" + suffix: (20,),
                "weight_hr" + suffix: (2, 5),
            }
    assert shapes == expected
    assert list(shapes) == list(expected)
    assert lstm.num_parameters() == sum(np.prod(shape) for shape in expected.values())


@by_id(OPTIONS)
def test_state_dict_round_trip(rng, dtype, options):
    case, other = example(rng, **options, dtype=dtype), example(rng, **options, dtype=dtype)
    given = case.lstm.state_dict()
    other.lstm.load_state_dict(given)
    expected = case()
    for array in given.values():
        array[...] = np.nan  # the layer took copies
    assert_same_result(other.lstm(case.x, case.state), expected)
    assert_same_result(case(), expected)


def test_load_state_dict_after_a_call(kernels, rng):
    """No packed copy of the old weights survives."""
    first, second = example(rng, num_layers=2), example(rng, num_layers=2)
    first(), first.forward()
    first.lstm.load_state_dict(second.lstm.state_dict())
    assert_same_result(first.lstm(second.x, second.state), second())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(kernels, rng, clone):
    case = example(rng, num_layers=2, bidirectional=True, proj_size=2, lengths=True)
    expected = case()
    other = clone(case.lstm)
    assert_same_result(other(case.x, case.state, **case.options), expected)
    other.load_state_dict(
        {name: np.zeros_like(array) for name, array in other.state_dict().items()}
    )
    assert_same_result(case(), expected)
    assert not other.weight_ih_l0.flags.writeable


def test_a_pickle_opens_under_another_backend(kernels, rng):
    case = example(rng)
    y, _ = case()
    with fl.use_backend("reference"):
        other, _ = pickle.loads(pickle.dumps(case.lstm))(case.x, case.state)
    assert_close(other, y, np.float32)


@by_id(OPTIONS)
def test_repr_builds_the_layer(options):
    lstm = fl.LSTM(3, 4, **options)
    said = repr(lstm)
    rebuilt = eval(said, {"LSTM": fl.LSTM, "fl": fl, "np": np})
    assert repr(rebuilt) == said
    shapes = [{name: a.shape for name, a in m.state_dict().items()} for m in (lstm, rebuilt)]
    assert shapes[0] == shapes[1]


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
