"""fl.GRU and fl.RNN against the oracle, and what their state being one array means."""

import numpy as np
import pytest
from compare import assert_close, assert_same_bits, assert_same_result
from oracle_gru_rnn import ACTIVATIONS, gru_cell, recurrent, rnn_cell
from random_layers import GRU_AND_RNN, example
from slopes import assert_slope

import fastlstm as fl

SIDES = ("", "_reverse")

SHAPES = [
    {},
    {"T": 4, "B": 1, "I": 2, "H": 19},
    {"T": 3, "B": 13, "I": 17, "H": 3, "bias": False},
    {"T": 5, "B": 4, "num_layers": 2, "bidirectional": True},
]
TIMING = {
    "all steps": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "lengths and resets": {"lengths": True, "resets": True},
}
kinds = pytest.mark.parametrize("kind", GRU_AND_RNN.values(), ids=GRU_AND_RNN)


def assert_oracle(case, kind):
    cell = gru_cell if kind["kind"] == "GRU" else rnn_cell
    expected = recurrent(
        cell,
        {name: array.tolist() for name, array in case.layer.state_dict().items()},
        case.x.tolist(),
        case.state.tolist(),
        **{name: array.tolist() for name, array in case.options.items()},
        **{name: value for name, value in kind.items() if name != "kind"},
    )
    for name, array, truth in zip("yh", case(), expected, strict=True):
        truth = np.array(truth)
        assert array.shape == truth.shape, name
        assert_close(array, truth, case.layer.dtype, name)


@pytest.mark.parametrize("timing", TIMING.values(), ids=TIMING)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@kinds
def test_oracle(kernels, dtype, rng, shape, kind, timing):
    assert_oracle(example(rng, **kind, **shape, **timing, dtype=dtype), kind)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(kernels, dtype, rng, name):
    for kind in (
        {"kind": "RNN", "nonlinearity": name},
        {"kind": "GRU", "activations": (name, "tanh")},
        {"kind": "GRU", "activations": ("sigmoid", name), "linear_before_reset": False},
    ):
        assert_oracle(example(rng, **kind, T=4, dtype=dtype), kind)


def test_an_open_update_gate_carries_h(kernels, dtype, rng):
    """Without rounding, over any number of steps."""
    case = example(rng, kind="GRU", dtype=dtype)
    weights = case.layer.state_dict()
    weights["bias_ih_l0"][4:8] = 100
    for options in ({}, {"linear_before_reset": False}):
        gru = fl.GRU(3, 4, dtype=dtype, **options)
        gru.load_state_dict(weights)
        y, h = gru(case.x, case.state)
        assert_same_bits(h, case.state)
        assert_same_bits(y, np.repeat(case.state, 7, axis=0))


@pytest.mark.parametrize("as_list", [False, True])
@kinds
def test_state_is_one_array(kernels, rng, kind, as_list):
    case = example(rng, **kind, num_layers=2)
    y, h = case()
    assert isinstance(h, np.ndarray)
    assert h.shape == case.state.shape
    np.testing.assert_array_equal(h[1], y[-1])
    state = case.state.tolist() if as_list else case.state
    assert_same_result(case.layer(case.x, state), (y, h))
    with pytest.raises((ValueError, TypeError), match="state"):
        case.layer(case.x, (case.state, case.state))
    with pytest.raises((ValueError, TypeError), match="state"):
        case.layer(case.x, case.state[:, :, 1:])


@kinds
def test_forms_of_a_call(kernels, rng, kind):
    """One sequence, batch first, a list, `out`, and threads."""
    case = example(rng, **kind, num_layers=2, bidirectional=True)
    y, h = case()
    single_y, single_h = example(rng, B=1, **kind)()
    assert (single_y.shape, single_h.shape) == ((7, 1, 4), (1, 1, 4))
    one = example(rng, B=1, **kind)
    flat_y, flat_h = one.layer(one.x[:, 0], one.state[:, 0])
    assert_same_bits(flat_y, one()[0][:, 0])
    assert_same_bits(flat_h, one()[1][:, 0])

    options = {name: value for name, value in kind.items() if name != "kind"}
    other = getattr(fl, kind["kind"])(
        3, 4, num_layers=2, bidirectional=True, batch_first=True, **options
    )
    other.load_state_dict(case.layer.state_dict())
    turned, final = other(case.x.transpose(1, 0, 2), case.state)
    assert_same_result((turned.transpose(1, 0, 2), final), (y, h))

    lengths = [3, 1, 7, 0, 5]
    sequences = [case.x[:length, row] for row, length in enumerate(lengths)]
    parts, final = case.layer(sequences, case.state)
    padded, expected = case.layer(case.x, case.state, lengths=lengths)
    assert_same_bits(final, expected)
    for row, length in enumerate(lengths):
        assert_same_bits(parts[row], padded[:length, row])
        assert (padded[length:, row] == 0).all()
    assert_same_bits(final[:, 3], case.state[:, 3])

    out = np.full_like(y, np.nan)
    assert_same_result(case(out=out), (y, h))
    assert_same_bits(out, y)
    assert_same_result(case(threads=3), (y, h))


@kinds
def test_cell_is_one_step(kernels, dtype, rng, kind):
    case = example(rng, T=1, **kind, dtype=dtype)
    options = {name: value for name, value in kind.items() if name != "kind"}
    cell = getattr(fl, kind["kind"] + "Cell")(3, 4, **options, dtype=dtype)
    cell.load_state_dict(
        {name.removesuffix("_l0"): array for name, array in case.layer.state_dict().items()}
    )
    h = cell(case.x[0], case.state[0])
    assert_same_bits(h, case()[1][0])
    assert_close(cell(case.x[0, 2], case.state[0, 2]), h[2], dtype)
    assert_same_bits(cell(case.x[0]), case.layer(case.x)[1][0])
    kept, tape = cell.forward(case.x[0], case.state[0])
    assert_same_bits(kept, h)
    grads = cell.backward(tape, np.ones_like(h))
    _, tape = case.forward()
    expected = case.layer.backward(tape, None, np.ones_like(case.state))
    assert_same_bits(grads.x, expected.x[0])
    assert_same_bits(grads.state, expected.state[0])
    assert list(grads.params) == list(cell.state_dict())


@kinds
def test_widths_and_learned_state(kernels, rng, kind):
    """A width for each layer makes the state a list; without one given, it is learned."""
    options = {name: value for name, value in kind.items() if name != "kind"}
    layer = getattr(fl, kind["kind"])(
        2,
        [4, 3],
        bidirectional=True,
        learn_initial_state=True,
        dtype=np.float64,
        rng=rng,
        **options,
    )
    parameters = layer.state_dict()
    for name, array in parameters.items():
        if name.startswith("initial_h"):
            assert (array == 0).all()
            array += rng.uniform(-1, 1, array.shape)
    layer.load_state_dict(parameters)
    x = rng.standard_normal((4, 3, 2))
    (y, h), tape = layer.forward(x)
    assert y.shape == (4, 3, 6)
    assert [part.shape for part in h] == [(2, 3, 4), (2, 3, 3)]
    given = [
        np.stack([np.tile(parameters[f"initial_h_l{k}{side}"], (3, 1)) for side in SIDES])
        for k in range(2)
    ]
    assert_same_bits(layer(x, given)[0], y)
    dy, dh = rng.standard_normal(y.shape), [rng.standard_normal(part.shape) for part in h]
    grads = layer.backward(tape, dy, dh)

    def loss():
        layer.load_state_dict(parameters)
        y, h = layer(x)
        return np.vdot(dy, y) + sum(np.vdot(d, part) for d, part in zip(dh, h, strict=True))

    assert list(grads.params) == list(parameters)
    assert_slope(grads.x, loss, x, "x")
    for name, array in parameters.items():
        assert_slope(grads.params[name], loss, array, name)


def test_keras_init(rng):
    gru = fl.GRU(5, 7, init="keras", rng=rng)
    R = gru.weight_hh_l0
    np.testing.assert_allclose(R.T @ R, np.eye(7), atol=1e-6)
    assert (gru.bias_ih_l0 == 0).all()
    assert (gru.bias_hh_l0 == 0).all()
    limit = (6 / 26) ** 0.5
    assert 0.9 * limit < np.abs(gru.weight_ih_l0).max() <= limit


def test_torchs_order_of_arguments():
    rnn = fl.RNN(3, 4, 2, "relu", False, True, 0.5, True)
    assert repr(rnn) == (
        "RNN(3, 4, num_layers=2, nonlinearity='relu', bias=False, batch_first=True, dropout=0.5, "
        "bidirectional=True)"
    )
    assert "bias_ih_l0" not in rnn.state_dict()
    assert repr(fl.RNNCell(3, 4, True, ("elu", 0.5))) == "RNNCell(3, 4, nonlinearity=('elu', 0.5))"
    gru = fl.GRU(3, 4, 2, False, True, 0.5, True, linear_before_reset=False, clip=2)
    assert repr(gru) == (
        "GRU(3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, "
        "linear_before_reset=False, clip=2.0)"
    )
