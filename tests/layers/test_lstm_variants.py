"""Every variant of fl.LSTM against the oracle, and what is true of each alone."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_close, assert_near, assert_same_bits
from oracle_variants import Options
from oracle_variants import lstm as oracle
from random_layers import VARIANTS, example

import fastlstm as fl

TIMING = {"all steps": {}, "lengths and resets": {"lengths": True, "resets": True}}
all_variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def slots(lstm, part):
    """A part of a state as one list [B][size] for each layer and direction."""
    if not isinstance(part, list):
        return part.tolist()
    return [row.tolist() for layer in part for row in layer]


def assert_follows_oracle(case, options, result, masks=None):
    (y, (h, c)), dtype = result, case.lstm.dtype
    known = {"coupled", "activations", "clip", "zoneout"}
    expected = oracle(
        {name: array.tolist() for name, array in case.lstm.state_dict().items()},
        Options(**{name: value for name, value in options.items() if name in known}),
        case.x.tolist(),
        *(slots(case.lstm, part) for part in case.state),
        **{name: array.tolist() for name, array in case.options.items()},
        masks=masks,
    )
    close = assert_close
    if options.get("layer_norm") and dtype == np.float32:  # may scale errors up a hundred times
        close = assert_close_in_the_large
    close(y, np.array(expected[0]), dtype, "y")
    for name, part, truth in zip("hc", (h, c), expected[1:], strict=True):
        for actual, rows in zip(slots(case.lstm, part), truth, strict=True):
            close(np.array(actual, dtype), np.array(rows), dtype, name)


def masks_of(drawn):
    """What training drew for one layer and direction, as the oracle takes it."""
    if drawn is None:
        return {}
    names = zip(("mask", "kept_h", "kept_c"), drawn, strict=True)
    return {name: array.tolist() for name, array in names if array is not None}


def assert_close_in_the_large(actual, expected, dtype, what):
    assert actual.dtype == dtype
    assert_near(actual, expected, 1e-4, what)


@all_variants
@pytest.mark.parametrize("timing", TIMING.values(), ids=TIMING)
@pytest.mark.parametrize("shape", [{}, {"T": 4, "B": 1, "I": 2}], ids=str)
def test_oracle(kernels, dtype, rng, shape, options, timing):
    case = example(rng, **{"H": 19 if shape else 4} | shape | options, **timing, dtype=dtype)
    assert_follows_oracle(case, options, case())


@all_variants
def test_oracle_in_training(kernels, dtype, rng, options):
    case = example(rng, **options, lengths=True, resets=True, dtype=dtype)
    result, tape = case.forward()
    drawn = getattr(tape.masks, "masks", tape.masks)  # by cell, or None
    masks = [masks_of(one) for one in drawn or [None] * 6]
    assert_follows_oracle(case, options, result, masks)


@all_variants
def test_training_computes_what_inference_does(compiled, dtype, rng, options):
    deterministic = {n: v for n, v in options.items() if n not in ("zoneout", "recurrent_dropout")}
    case = example(rng, **{"B": 11, "T": 9} | deterministic, lengths=True, dtype=dtype)
    (y, state), ((trained, trained_state), _) = case(), case.forward()
    assert_same_bits(trained, y)
    for part, other in zip(trained_state, state, strict=True):
        for a, b in zip(part, other, strict=True):
            assert_same_bits(a, b)


@all_variants
def test_same_row_same_bits(compiled, dtype, rng, options):
    """Neither neighbors nor padding nor the cut into calls changes a row."""
    case = example(rng, **{"B": 13, "T": 6} | options, dtype=dtype)
    case.lstm = fl.LSTM(
        3,
        case.lstm.hidden_size,
        **{"rng": 1, "dtype": dtype}
        | {
            name: value
            for name, value in options.items()
            if name != "H" and name != "bidirectional"
        },
    )
    y, _ = case.lstm(case.x)
    for rows in (slice(4, 5), slice(0, 2), slice(3, 10)):
        assert_same_bits(case.lstm(case.x[:, rows])[0], y[:, rows])
    head, state = case.lstm(case.x[:2])
    tail, _ = case.lstm(case.x[2:], state)
    assert_same_bits(np.concatenate([head, tail]), y)
    padded = np.concatenate([case.x, case.x[:3]])
    ragged, _ = case.lstm(padded, lengths=np.arange(13) % 6 + 1)
    for row in range(13):
        assert_same_bits(ragged[: row % 6 + 1, row], y[: row % 6 + 1, row])


@all_variants
@pytest.mark.usefixtures("share_all_work")
def test_threads(compiled, rng, options):
    case = example(rng, **{"B": 23, "T": 5} | options, lengths=True, resets=True)
    results = []
    for threads in (1, 3):
        lstm = copy.deepcopy(case.lstm)
        (y, state), tape = lstm.forward(case.x, case.state, **case.options, threads=threads)
        results.append((y, lstm.backward(tape, y, state, threads=threads)))
    (y, grads), (expected, expected_grads) = results
    assert_same_bits(y, expected)
    for name, array in expected_grads.params.items():
        assert_close(grads.params[name], array, np.float32, name)


@all_variants
def test_copies(kernels, rng, options):
    case = example(rng, **options)
    y, _ = case()
    for clone in (copy.deepcopy(case.lstm), pickle.loads(pickle.dumps(case.lstm))):
        assert_same_bits(clone(case.x, case.state)[0], y)
    other = example(rng, **options)
    other.lstm.load_state_dict(case.lstm.state_dict())
    assert_same_bits(other.lstm(case.x, case.state)[0], y)


@all_variants
def test_repr_builds_the_layer(rng, options):
    lstm = example(rng, **options).lstm
    rebuilt = eval(repr(lstm), {"LSTM": fl.LSTM})
    assert repr(rebuilt) == repr(lstm)
    rebuilt.load_state_dict(lstm.state_dict())
    x = rng.standard_normal((4, 2, 3))
    assert_same_bits(rebuilt(x)[0], lstm(x)[0])


def test_a_plain_layer_says_nothing_of_variants():
    assert repr(fl.LSTM(3, 4)) == "LSTM(3, 4)"
    assert repr(fl.LSTM(3, [4, 5], clip=2)) == "LSTM(3, [4, 5], clip=2.0)"
    assert repr(fl.LSTM(3, 4, activations=(("elu", 2), ("elu", 1), "tanh"))) == (
        "LSTM(3, 4, activations=(('elu', 2.0), 'elu', 'tanh'))"
    )


def test_the_general_cell_without_variants_is_the_plain_one(kernels, dtype, rng):
    """A clip so wide that nothing reaches it."""
    case = example(rng, num_layers=2, bidirectional=True, lengths=True, resets=True, dtype=dtype)
    other = fl.LSTM(3, 4, num_layers=2, bidirectional=True, clip=1e6, dtype=dtype)
    other.load_state_dict(case.lstm.state_dict())
    y, _ = other(case.x, case.state, **case.options)
    assert_close(y, case()[0], dtype)


def test_forget_rows_of_coupled_gates_have_no_effect(kernels, rng):
    case = example(rng, coupled=True, peepholes=True)
    (y, _), tape = case.forward()
    grads = case.lstm.backward(tape, np.ones_like(y)).params
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        assert (grads[name][4:8] == 0).all(), name
        assert (grads[name][:4] != 0).any(), name
    assert (grads["weight_peephole_l0"][4:8] == 0).all()
    changed = case.lstm.state_dict()
    changed["weight_ih_l0"][4:8] += 1
    case.lstm.load_state_dict(changed)
    assert_same_bits(case()[0], y)


class TestRecurrentDropout:
    def test_is_for_training(self, kernels, rng):
        case = example(rng, recurrent_dropout=0.5)
        plain = fl.LSTM(3, 4)
        plain.load_state_dict(case.lstm.state_dict())
        assert_same_bits(case()[0], plain(case.x, case.state)[0])
        assert (case.forward()[0][0] != case()[0]).any()

    def test_one_mask_for_all_steps(self, kernels, rng):
        """Unit u's h reaches the next step's gates through R alone, or not at all."""
        lstm = fl.LSTM(2, 300, recurrent_dropout=0.25, dtype=np.float64, rng=rng)
        x = rng.standard_normal((3, 2, 2))
        h0, c0 = rng.standard_normal((2, 1, 2, 300))
        (y, _), tape = lstm.forward(x, (h0, c0))
        lost = lstm.backward(tape, np.ones_like(y)).state[0][0] == 0
        assert 0.15 < lost.mean() < 0.35
        assert (lost[0] != lost[1]).any()
        blinded = {name: array.copy() for name, array in lstm.state_dict().items()}
        blinded["weight_hh_l0"][:, lost[0]] = 0
        blinded["weight_hh_l0"] /= 0.75
        plain = fl.LSTM(2, 300, dtype=np.float64)
        plain.load_state_dict(blinded)
        expected, _ = plain(x[:, :1], (h0[:, :1], c0[:, :1]))
        np.testing.assert_allclose(y[:, :1], expected, rtol=1e-10)

    def test_of_everything(self, kernels, rng):
        case = example(rng, recurrent_dropout=1.0)
        (y, _), tape = case.forward()
        grads = case.lstm.backward(tape, y)
        assert (grads.params["weight_hh_l0"] == 0).all()
        assert (grads.state[0] == 0).all()


class TestZoneout:
    def test_shares(self, kernels, rng):
        case = example(rng, H=400, T=3, B=4, zoneout=(0.25, 0.5))
        x, (h0, c0) = case.x[:1], case.state
        (_, (h, c)), _ = case.lstm.forward(x, case.state)
        assert 0.2 < (h == h0).mean() < 0.3
        assert 0.45 < (c == c0).mean() < 0.55
        (_, (h2, _)), _ = case.lstm.forward(x, case.state)
        assert ((h2 == h0) != (h == h0)).any()

    def test_inference_is_the_expectation(self, kernels, rng):
        case = example(rng, T=1, zoneout=(0.25, 0.5), dtype=np.float64)
        plain = fl.LSTM(3, 4, dtype=np.float64)
        plain.load_state_dict(case.lstm.state_dict())
        (h0, c0), (_, (h, c)), (_, (h1, c1)) = case.state, case(), plain(case.x, case.state)
        np.testing.assert_allclose(h, 0.25 * h0 + 0.75 * h1, rtol=1e-12)
        np.testing.assert_allclose(c, 0.5 * c0 + 0.5 * c1, rtol=1e-12)
        drawn = [case.forward()[0][1] for _ in range(4000)]
        for place, expected in enumerate((h, c)):
            average = np.mean([state[place] for state in drawn], axis=0)
            np.testing.assert_allclose(average, expected, atol=0.08)

    def test_of_everything(self, kernels, rng):
        case = example(rng, zoneout=(1, 1))
        for result in (case(), case.forward()[0]):
            y, state = result
            for part, given in zip(state, case.state, strict=True):
                assert_same_bits(part, given)
            assert_same_bits(y[3], case.state[0][0])


class TestLearnedState:
    def test_begins_as_zero(self, kernels, rng):
        lstm = fl.LSTM(3, 4, num_layers=2, learn_initial_state=True, rng=1)
        plain = fl.LSTM(3, 4, num_layers=2, rng=1)
        x = rng.standard_normal((7, 5, 3))
        assert_same_bits(lstm(x)[0], plain(x)[0])

    def test_is_used_without_a_state_only(self, kernels, rng):
        case = example(rng, learn_initial_state=True, num_layers=2, bidirectional=True)
        parameters = case.lstm.state_dict()
        suffixes = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
        state = tuple(
            np.stack([np.tile(parameters[f"initial_{part}{s}"], (5, 1)) for s in suffixes])
            for part in "hc"
        )
        assert_same_bits(case.lstm(case.x)[0], case.lstm(case.x, state)[0])
        (y, _), tape = case.lstm.forward(case.x, state)
        given = case.lstm.backward(tape, y)
        (y, _), tape = case.lstm.forward(case.x)
        learned = case.lstm.backward(tape, y)
        for at, s in enumerate(suffixes):
            for part, gradient in zip("hc", given.state, strict=True):
                name = f"initial_{part}{s}"
                assert_close(learned.params[name], gradient[at].sum(axis=0), np.float32, name)
                assert (given.params[name] == 0).all()

    def test_resets_are_to_zero(self, kernels, rng):
        case = example(rng, learn_initial_state=True)
        resets = np.zeros((7, 5), bool)
        resets[0] = True
        zeros = tuple(np.zeros_like(part) for part in case.state)
        assert_same_bits(case.lstm(case.x, resets=resets)[0], case.lstm(case.x, zeros)[0])


def test_widths_are_layers_of_their_own(compiled, rng):
    case = example(rng, H=[4, 6, 3], bidirectional=True)
    y, (h, c) = case()
    assert y.shape == (7, 5, 6)
    assert [part.shape for part in h] == [part.shape for part in c]
    assert [part.shape for part in h] == [(2, 5, 4), (2, 5, 6), (2, 5, 3)]
    x = case.x
    for layer, width in enumerate([4, 6, 3]):
        one = fl.LSTM(x.shape[2], width, bidirectional=True)
        one.load_state_dict(
            {
                name.replace(f"_l{layer}", "_l0"): array
                for name, array in case.lstm.state_dict().items()
                if f"_l{layer}" in name
            }
        )
        x, (h1, c1) = one(x, tuple(part[layer] for part in case.state))
        assert_same_bits(h1, h[layer])
        assert_same_bits(c1, c[layer])
    assert_same_bits(x, y)


def test_equal_widths_are_as_one_number(rng):
    many, one = fl.LSTM(3, [4, 4], rng=1), fl.LSTM(3, 4, num_layers=2, rng=1)
    x = rng.standard_normal((7, 5, 3))
    (y, (h, _)), (expected, _) = many(x), one(x)
    assert_same_bits(y, expected)
    assert h.shape == (2, 5, 4)
    assert h.flags.owndata


def test_one_sequence_through_layers_that_differ(kernels, rng):
    case = example(rng, H=[4, 6], B=1)
    state = tuple([part[:, 0] for part in layers] for layers in case.state)
    y, (h, c) = case.lstm(case.x[:, 0], state)
    expected, (expected_h, expected_c) = case()
    assert_same_bits(y, expected[:, 0])
    for actual, truth in zip(h + c, expected_h + expected_c, strict=True):
        assert_same_bits(actual, truth[:, 0])
    (y, state), tape = case.lstm.forward(case.x[:, 0], state)
    grads = case.lstm.backward(tape, y, state)
    assert [part.shape for part in grads.state[1]] == [(1, 4), (1, 6)]


@pytest.mark.parametrize(
    "options",
    [
        {"peepholes": True, "coupled": True},
        {"layer_norm": True, "activations": ("hard_sigmoid", "tanh", "relu")},
        {"clip": 0.5, "zoneout": (0.25, 0.5)},
    ],
    ids=str,
)
def test_cell_is_one_step(kernels, rng, options):
    case = example(rng, T=1, **options)
    cell = fl.LSTMCell(3, 4, **options)
    cell.load_state_dict(
        {name.removesuffix("_l0"): array for name, array in case.lstm.state_dict().items()}
    )
    h, c = cell(case.x[0], tuple(part[0] for part in case.state))
    _, (expected_h, expected_c) = case()
    assert_same_bits(h, expected_h[0])
    assert_same_bits(c, expected_c[0])
    _, tape = cell.forward(case.x[0])
    assert set(cell.backward(tape, (h, c)).params) == set(cell.state_dict())


def test_chrono(rng):
    lstm = fl.LSTM(3, 2000, init="chrono", t_max=50, bidirectional=True, rng=rng)
    for suffix in ("_l0", "_l0_reverse"):
        own, other = getattr(lstm, "bias_ih" + suffix), getattr(lstm, "bias_hh" + suffix)
        memory = np.exp(own[2000:4000].astype(float))
        assert 1 <= memory.min() < 1.2
        assert 48 < memory.max() <= 49.001
        assert abs(memory.mean() - 25) < 1
        np.testing.assert_array_equal(own[:2000], -own[2000:4000])
        assert (other[:4000] == 0).all()
        assert (np.abs(own[4000:]) <= 2000**-0.5).all()
        assert (other[4000:] != 0).all()


def test_parameters_of_variants():
    lstm = fl.LSTM(
        3,
        [4, 5],
        proj_size=2,
        peepholes=True,
        layer_norm=True,
        learn_initial_state=True,
    )
    for layer, (inputs, H) in enumerate([(3, 4), (2, 5)]):
        shapes = {
            name.removesuffix(f"_l{layer}"): array.shape
            for name, array in lstm.state_dict().items()
            if name.endswith(f"_l{layer}")
        }
        assert shapes == {
            "weight_ih": (4 * H, inputs),
            "weight_hh": (4 * H, 2),
            "bias_ih": (4 * H,),
            "bias_hh": (4 * H,),
            "weight_hr": (2, H),
            "weight_peephole": (3 * H,),
            "weight_ln_ih": (4 * H,),
            "weight_ln_hh": (4 * H,),
            "weight_ln_c": (H,),
            "bias_ln_c": (H,),
            "initial_h": (2,),
            "initial_c": (H,),
        }
    assert (lstm.weight_ln_ih_l0 == 1).all()
    assert (lstm.initial_c_l1 == 0).all()
    assert (lstm.weight_peephole_l0 != 0).all()
    assert (np.abs(lstm.weight_peephole_l0) <= 0.5).all()


@pytest.mark.parametrize("bound", [1.0, -1.0])
def test_the_slope_at_the_clip_itself_is_that_of_the_activation(kernels, dtype, bound):
    """It is 0 beyond the clip. dh/dx = (1 - tanh(1)²) W."""
    layer = fl.RNN(1, 1, clip=1.0, bias=False, dtype=dtype, rng=0)
    layer.load_state_dict({"weight_ih_l0": [[1]], "weight_hh_l0": [[0]]})
    _, tape = layer.forward(np.full((1, 1, 1), bound, dtype))
    dx = layer.backward(tape, np.ones((1, 1, 1), dtype)).x
    np.testing.assert_allclose(dx, 1 - np.tanh(1.0) ** 2, rtol=1e-5)
