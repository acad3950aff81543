"""backward against finite differences, and the tape's manners."""

import copy

import numpy as np
import pytest
from compare import assert_near, assert_same_bits
from random_layers import GRU_AND_RNN, each, example, parts
from slopes import assert_slope

import fastlstm as fl

EVERYTHING = {
    "T": 5,
    "I": 2,
    "H": 4,
    "B": 3,
    "num_layers": 2,
    "bidirectional": True,
    "proj_size": 3,
    "lengths": True,
    "resets": True,
}
SMALL = {"T": 5, "I": 2, "H": 3, "B": 4}
EVERYTHING_ELSE = SMALL | {
    "num_layers": 2,
    "bidirectional": True,
    "lengths": True,
    "resets": True,
}
CASES = {
    "plain": {},
    "no bias": {"bias": False},
    "projected": {"proj_size": 2},
    "lengths": {"lengths": True, "num_layers": 2},
    "resets": {"resets": True},
    "both directions": {"bidirectional": True, "T": 4, "B": 2},
    "wide": {"H": 18, "T": 2, "B": 2, "I": 1},
    "everything": EVERYTHING,
}
for name, kind in GRU_AND_RNN.items():
    CASES[name] = SMALL | kind
    CASES[name + ", no bias"] = SMALL | kind | {"bias": False}
    CASES[name + ", everything"] = EVERYTHING_ELSE | kind


class Loss:
    """A random linear function of all that a call returns."""

    def __init__(self, rng, result):
        y, state = result
        self.dy = rng.standard_normal(y.shape)
        self.dstate = each(lambda part: rng.standard_normal(part.shape), state)

    def __call__(self, result):
        y, state = result
        pairs = zip(parts(self.dstate), parts(state), strict=True)
        return np.vdot(self.dy, y) + sum(np.vdot(*pair) for pair in pairs)

    def backward(self, layer, tape):
        return layer.backward(tape, self.dy, self.dstate)


def assert_slopes(case, loss, grads, run):
    assert_slope(grads.x, lambda: loss(run()), case.x, "x")
    for name, part, actual in zip("hc", parts(case.state), parts(grads.state), strict=False):
        assert_slope(actual, lambda: loss(run()), part, f"{name}0")
    parameters = case.lstm.state_dict()
    assert list(grads.params) == list(parameters)

    def with_parameters():
        case.lstm.load_state_dict(parameters)
        return loss(run())

    for name, array in parameters.items():
        assert_slope(grads.params[name], with_parameters, array, name)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_finite_differences(kernels, rng, options):
    case = example(rng, dtype=np.float64, **options)
    result, tape = case.forward()
    loss = Loss(rng, result)
    assert_slopes(case, loss, loss.backward(case.lstm, tape), case)


def test_finite_differences_through_dropout(kernels, rng):
    """A copy of the layer draws the masks that the layer itself would draw next."""
    case = example(rng, dtype=np.float64, T=4, B=2, num_layers=3, bidirectional=True, dropout=0.4)

    case.lstm = copy.deepcopy(case.lstm)  # whose generator nobody else draws from

    def run():
        return copy.deepcopy(case.lstm).forward(case.x, case.state)[0]

    twin = copy.deepcopy(case.lstm)
    result, tape = twin.forward(case.x, case.state)
    loss = Loss(rng, result)
    assert_slopes(case, loss, loss.backward(twin, tape), run)


def test_float32_follows_float64(kernels, rng):
    case = example(rng, dtype=np.float64, **EVERYTHING | {"T": 40, "B": 9, "H": 20, "I": 17})
    single = fl.LSTM(17, 20, num_layers=2, bidirectional=True, proj_size=3, dtype=np.float32)
    single.load_state_dict(case.lstm.state_dict())
    result, tape = case.forward()
    loss = Loss(rng, result)
    expected = loss.backward(case.lstm, tape)
    _, tape = single.forward(case.x, case.state, **case.options)
    actual = loss.backward(single, tape)
    pairs = {name: (actual.params[name], expected.params[name]) for name in expected.params}
    pairs["x"] = actual.x, expected.x
    pairs |= dict(zip("hc", zip(actual.state, expected.state, strict=True), strict=True))
    for name, (a, b) in pairs.items():
        assert a.dtype == np.float32
        assert_near(a, b, 2e-5, name)


def test_no_gradient_where_a_row_has_ended(kernels, rng):
    case = example(rng, num_layers=2, bidirectional=True, lengths=True)
    (y, _), tape = case.forward()
    grads = case.lstm.backward(tape, np.ones_like(y))
    for row, length in enumerate(case.options["lengths"]):
        assert (grads.x[length:, row] == 0).all()
        assert (grads.x[:length, row] != 0).all()


def test_padding_of_dy_is_ignored(kernels, rng):
    case = example(rng, num_layers=2, bidirectional=True, lengths=True)
    results = []
    for padding in (0, np.nan):
        (y, _), tape = case.forward()
        dy = np.ones_like(y)
        for row, length in enumerate(case.options["lengths"]):
            dy[length:, row] = padding
        results.append(case.lstm.backward(tape, dy))
    np.testing.assert_array_equal(results[0].x, results[1].x)
    for name, array in results[0].params.items():
        np.testing.assert_array_equal(array, results[1].params[name], err_msg=name)


def test_a_row_of_no_steps_hands_its_state_gradient_on(kernels, rng):
    case = example(rng, num_layers=2)
    lengths = np.array([3, 0, 7, 1, 5])
    (y, (h, c)), tape = case.lstm.forward(case.x, case.state, lengths=lengths)
    dstate = rng.standard_normal(h.shape), rng.standard_normal(c.shape)
    grads = case.lstm.backward(tape, np.ones_like(y), dstate)
    for actual, given in zip(grads.state, dstate, strict=True):
        np.testing.assert_array_equal(actual[:, 1], given[:, 1].astype(np.float32))


def test_no_dstate_is_zero_dstate(kernels, rng):
    case = example(rng, num_layers=2)
    zeros = tuple(np.zeros_like(part) for part in case.state)
    results = []
    for dstate in (None, zeros):
        (y, _), tape = case.forward()
        results.append(case.lstm.backward(tape, y, dstate))
    np.testing.assert_array_equal(results[0].x, results[1].x)
    np.testing.assert_array_equal(results[0].state, results[1].state)


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradient_of_a_list(kernels, rng, batch_first):
    case = example(rng, num_layers=2, bidirectional=True, batch_first=batch_first)
    lengths = [3, 1, 7, 0, 5]
    sequences = [case.x[:length, row] for row, length in enumerate(lengths)]
    (y, _), tape = case.lstm.forward(sequences, case.state)
    grads = case.lstm.backward(tape, y)

    def turned(a):
        return a.transpose(1, 0, 2) if batch_first else a

    (padded, _), tape = case.lstm.forward(turned(case.x), case.state, lengths=lengths)
    expected = case.lstm.backward(tape, padded)
    assert isinstance(grads.x, list)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(grads.x[row], turned(expected.x)[:length, row])
    for name, array in expected.params.items():
        np.testing.assert_array_equal(grads.params[name], array, err_msg=name)


def test_gradient_of_one_sequence(kernels, rng):
    case = example(rng, B=1, num_layers=2)
    (y, _), tape = case.lstm.forward(case.x[:, 0], tuple(part[:, 0] for part in case.state))
    grads = case.lstm.backward(tape, y)
    assert grads.x.shape == (7, 3)
    assert [part.shape for part in grads.state] == [(2, 4), (2, 4)]
    (y, _), tape = case.forward()
    expected = case.lstm.backward(tape, y)
    np.testing.assert_array_equal(grads.x, expected.x[:, 0])


def test_gradients_without_steps(kernels, rng):
    case = example(rng, T=0, num_layers=2)
    (y, (h, c)), tape = case.forward()
    grads = case.lstm.backward(tape, y, (h, c))
    assert grads.x.shape == (0, 5, 3)
    for actual, given in zip(grads.state, (h, c), strict=True):
        np.testing.assert_array_equal(actual, given)
    for name, array in grads.params.items():
        assert (array == 0).all(), name


def test_a_tape_serves_once(kernels, rng):
    case = example(rng)
    (y, _), tape = case.forward()
    case.lstm.backward(tape, y)
    with pytest.raises(ValueError, match="tape"):
        case.lstm.backward(tape, y)


def test_tapes_do_not_disturb_each_other(kernels, rng):
    case, other = example(rng), example(rng)
    (y, _), tape = case.forward()
    expected = case.lstm.backward(tape, y)
    (y, _), tape = case.forward()
    case.lstm.forward(other.x, other.state)
    case.lstm(other.x)
    np.testing.assert_array_equal(case.lstm.backward(tape, y).x, expected.x)


def test_a_tape_remembers_its_weights(kernels, rng):
    """Weights that change between forward and backward do not mix into the gradient."""
    case, other = example(rng, num_layers=2), example(rng, num_layers=2)
    (y, _), tape = case.forward()
    expected = case.lstm.backward(tape, y)
    (y, _), tape = case.forward()
    case.lstm.load_state_dict(other.lstm.state_dict())
    np.testing.assert_array_equal(case.lstm.backward(tape, y).x, expected.x)


def test_dropout_masks(kernels, rng):
    """With one step, a column of the next layer's dW is dz times the input it saw."""
    lstm = fl.LSTM(3, 400, num_layers=2, dropout=0.25, dtype=np.float64, rng=rng)
    x = rng.standard_normal((1, 1, 3))
    first = fl.LSTM(3, 400, dtype=np.float64)
    first.load_state_dict({n: a for n, a in lstm.state_dict().items() if n.endswith("l0")})
    hidden = first(x)[0][0, 0]
    masks = []
    for _ in range(2):
        (y, _), tape = lstm.forward(x)
        grads = lstm.backward(tape, np.ones_like(y)).params
        seen = grads["weight_ih_l1"][0] / grads["bias_ih_l1"][0]
        masks.append(seen != 0)
        np.testing.assert_allclose(seen[masks[-1]], hidden[masks[-1]] / 0.75, rtol=1e-9)
        assert 0.65 < masks[-1].mean() < 0.85
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_dropout_drops_what_is_not_finite(kernels, dtype, kind):
    """Where all is dropped, the next layer sees zeros: not NaN, which 0 · inf is."""
    options = {"nonlinearity": "relu"} if kind == "RNN" else {"activations": ("sigmoid", "relu")}
    layer = getattr(fl, kind)(1, 2, num_layers=2, dropout=1.0, dtype=dtype, **options)
    ones = {name: np.ones_like(array) for name, array in layer.state_dict().items()}
    layer.load_state_dict(ones)
    second = getattr(fl, kind)(2, 2, dtype=dtype, **options)
    second.load_state_dict({n.replace("l1", "l0"): a for n, a in ones.items() if "l1" in n})
    state = np.zeros((2, 5, 2), dtype)
    state[0] = np.inf
    (y, h), tape = layer.forward(np.ones((3, 5, 1)), state)
    assert not np.isfinite(h[0]).any()
    assert_same_bits(y, second(np.zeros((3, 5, 2), dtype))[0])
    grads = layer.backward(tape, np.ones_like(y))
    assert (grads.params["weight_ih_l1"] == 0).all()
    assert (grads.params["bias_ih_l1"] != 0).all()


def test_dropout_is_for_training(kernels, rng):
    dropped = fl.LSTM(3, 4, num_layers=2, dropout=0.9, rng=rng)
    plain = fl.LSTM(3, 4, num_layers=2)
    plain.load_state_dict(dropped.state_dict())
    x = rng.standard_normal((7, 5, 3))
    np.testing.assert_array_equal(dropped(x)[0], plain(x)[0])
    assert (dropped.forward(x)[0][0] != plain(x)[0]).any()
