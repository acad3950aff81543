"""Sequential: names, state, and gradients through every kind of layer."""

import copy
import pickle
import re

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from models import Swap
from slopes import assert_slope

import fastlstm as fl

T, B = 6, 4
WORDS = np.random.default_rng(5).integers(0, 9, (T, B))
OPTIONS = {
    "plain": {},
    "lengths": {"lengths": [3, 0, 6, 5]},
    "resets": {"resets": np.random.default_rng(6).random((T, B)) < 0.3},
    "mask": {"mask": np.random.default_rng(7).random((T, B)) < 0.6},
    "threads": {"threads": 1},
}
OPTIONS["all"] = {name: value for options in OPTIONS.values() for name, value in options.items()}


def kept(lengths=None, mask=True, **_):
    """Where steps are kept."""
    kept = np.full((T, B), mask)
    return kept if lengths is None else kept & (np.arange(T)[:, None] < lengths)


def text_model(rng, dtype=np.float64, dropout=0.0):
    """Two recurrent layers, of different sizes, with others around them."""
    return fl.Sequential(
        fl.Embedding(9, 3, dtype=dtype, rng=rng),
        fl.LSTM(3, 5, bidirectional=True, dtype=dtype, rng=rng),
        fl.Dropout(dropout, rng=1),
        fl.LSTM(10, 4, num_layers=2, proj_size=2, dtype=dtype, rng=rng),
        fl.Linear(2, 7, dtype=dtype, rng=rng),
    )


def text_state(rng):
    shapes = ((2, B, 5), (2, B, 5)), ((2, B, 2), (2, B, 4))
    return tuple(tuple(rng.uniform(-1, 1, shape) for shape in pair) for pair in shapes)


def dense_model(rng, dtype=np.float64):
    return fl.Sequential(
        fl.Linear(3, 5, dtype=dtype, rng=rng),
        fl.Sequential(fl.Dropout(0.0), fl.Linear(5, 2, bias=False, dtype=dtype, rng=rng)),
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_call_is_every_layers_call(kernels, rng, options):
    model, state = text_model(rng, dropout=0.5), text_state(rng)
    embedding, first, _, second, linear = model
    y, final = model(WORDS, state, **options)
    hidden, first_final = first(embedding(WORDS), state[0], **options)
    hidden, second_final = second(hidden, state[1], **options)
    assert_same_bits(y, np.where(kept(**options)[..., None], linear(hidden), 0))
    assert isinstance(final, tuple)
    for pair, expected in zip(final, (first_final, second_final), strict=True):
        for part, expected_part in zip(pair, expected, strict=True):
            assert_same_bits(part, expected_part)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_forward_computes_what_a_call_does(kernels, rng, options):
    model, state = text_model(rng), text_state(rng)
    y, final = model(WORDS, state, **options)
    (kept_y, kept_final), _ = model.forward(WORDS, state, **options)
    assert_same_bits(kept_y, y)
    np.testing.assert_equal(kept_final, final)


def test_state_is_carried(compiled, rng):
    model = fl.Sequential(
        fl.Embedding(9, 3, rng=rng), fl.LSTM(3, 5, num_layers=2, rng=rng), fl.Linear(5, 7, rng=rng)
    )
    y, final = model(WORDS)
    first, middle = model(WORDS[:2])
    second, last = model(WORDS[2:], middle)
    assert_same_bits(np.concatenate([first, second]), y)
    for part, expected in zip(last[0], final[0], strict=True):
        assert_same_bits(part, expected)


def test_an_entry_of_none_is_zeros(kernels, rng):
    model, state = text_model(rng), text_state(rng)
    zeros = tuple(np.zeros_like(part) for part in state[0])
    assert_same_bits(model(WORDS, (None, state[1]))[0], model(WORDS, [zeros, state[1]])[0])
    assert_same_bits(model(WORDS)[0], model(WORDS, (None, None))[0])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_finite_differences(rng, options):
    model, state = text_model(rng, dropout=0.3), text_state(rng)
    parameters = model.state_dict()
    dstate = tuple(tuple(rng.standard_normal(p.shape) for p in pair) for pair in text_state(rng))
    dy = rng.standard_normal((T, B, 7))
    drawn = copy.deepcopy(model)
    (y, final), tape = drawn.forward(WORDS, state, **options)
    assert [[p.shape for p in pair] for pair in final] == [[p.shape for p in s] for s in state]
    assert y.shape == dy.shape
    threads = {"threads": 1} if "threads" in options else {}
    grads = drawn.backward(tape, dy, dstate, **threads)

    def loss():
        model.load_state_dict(parameters)
        y, final = copy.deepcopy(model).forward(WORDS, state, **options)[0]
        total = np.vdot(dy, y)
        for pair, dpair in zip(final, dstate, strict=True):
            total += sum(np.vdot(d, part) for d, part in zip(dpair, pair, strict=True))
        return total

    assert grads.x is None
    assert list(grads.params) == list(parameters)
    for name in ("0.weight", "1.bias_hh_l0_reverse", "3.weight_hr_l1", "3.bias_ih_l0", "4.bias"):
        assert_slope(grads.params[name], loss, parameters[name], name)
    for pair, dpair in zip(state, grads.state, strict=True):
        for part, dpart in zip(pair, dpair, strict=True):
            assert_slope(dpart, loss, part, "state")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_kind_of_recurrent_layer(kernels, rng, options):
    """Each takes its own form of state: (h, c), or h."""
    model = fl.Sequential(
        fl.GRU(3, 4, bidirectional=True, dtype=np.float64, rng=rng),
        fl.Linear(8, 2, dtype=np.float64, rng=rng),
        fl.LSTM(2, 5, dtype=np.float64, rng=rng),
        fl.RNN(5, 3, num_layers=2, dtype=np.float64, rng=rng),
    )
    x, h = rng.standard_normal((T, B, 3)), rng.uniform(-1, 1, (2, B, 4))
    state = (h, tuple(rng.uniform(-1, 1, (2, 1, B, 5))), rng.uniform(-1, 1, (2, B, 3)))
    y, final = model(x, state, **options)
    hidden, first = model[0](x, state[0], **options)
    hidden, second = model[2](model[1](hidden), state[1], **options)
    expected, third = model[3](hidden, state[2], **options)
    assert_same_bits(y, expected)
    np.testing.assert_equal(final, (first, second, third))
    (kept, _), tape = model.forward(x, state, **options)
    assert_same_bits(kept, y)
    dy, dstate = rng.standard_normal(y.shape), (np.ones_like(h), None, final[2])
    grads = model.backward(tape, dy, dstate)
    weights = final[2].copy()

    def loss():
        y, (h, _, last) = model(x, state, **options)
        return np.vdot(dy, y) + h.sum() + np.vdot(weights, last)

    assert_slope(grads.x, loss, x, "x")
    assert_slope(grads.state[0], loss, state[0], "h of the GRU")
    assert_slope(grads.state[2], loss, state[2], "h of the RNN")


def test_finite_differences_without_recurrence(kernels, rng):
    model = dense_model(rng)
    x, dy = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6, 2))
    parameters = model.state_dict()
    y, tape = model.forward(x)
    assert_same_bits(y, model(x))
    grads = model.backward(tape, dy)

    def loss():
        model.load_state_dict(parameters)
        return np.vdot(dy, model(x))

    assert grads.state is None
    assert_slope(grads.x, loss, x, "x")
    assert list(grads.params) == ["0.weight", "0.bias", "1.1.weight"]
    for name, array in parameters.items():
        assert_slope(grads.params[name], loss, array, name)


def test_gradient_of_the_final_state_alone(kernels, rng):
    model = fl.Sequential(fl.Embedding(9, 3, rng=rng), fl.LSTM(3, 5, rng=rng))
    dstate = (tuple(rng.standard_normal((2, 1, B, 5))),)
    grads = model.backward(model.forward(WORDS)[1], None, dstate)
    expected = model.backward(model.forward(WORDS)[1], np.zeros((T, B, 5)), dstate)
    for name, array in grads.params.items():
        assert (array != 0).any(), name
        np.testing.assert_array_equal(array, expected.params[name], err_msg=name)


def test_as_torch(kernels, rng, dtype):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(
        torch.nn.Linear(3, 5), torch.nn.LSTM(5, 4, num_layers=2, batch_first=True)
    ).to(getattr(torch, dtype.name))
    model = fl.Sequential(
        fl.Linear(3, 5, dtype=dtype), fl.LSTM(5, 4, num_layers=2, batch_first=True, dtype=dtype)
    )
    assert list(model.state_dict()) == list(theirs.state_dict())
    model.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    x = rng.standard_normal((B, T, 3)).astype(dtype)
    their_x = torch.tensor(x, requires_grad=True)
    their_y, (their_h, their_c) = theirs(their_x)
    (their_y.sum() + 2 * their_h.sum() + 3 * their_c.sum()).backward()
    (y, ((h, c),)), tape = model.forward(x)
    grads = model.backward(tape, np.ones_like(y), ((2 * np.ones_like(h), 3 * np.ones_like(c)),))
    for actual, expected in ((y, their_y), (h, their_h), (c, their_c)):
        assert_close(actual, expected.detach().numpy(), dtype)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(grads.x, their_x.grad.numpy(), tolerance, tolerance)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(
            grads.params[name], parameter.grad.numpy(), tolerance, tolerance, err_msg=name
        )


def test_a_recurrent_sequential_within_another(kernels, rng):
    inner = fl.Sequential(fl.Linear(3, 5, rng=rng), fl.LSTM(5, 4, rng=rng))
    model = fl.Sequential(inner, fl.LSTM(4, 2, rng=rng))
    x = rng.standard_normal((T, B, 3))
    (y, final), tape = model.forward(x)
    assert [part.shape for part in final[0][0]] == [(1, B, 4), (1, B, 4)]
    assert [part.shape for part in final[1]] == [(1, B, 2), (1, B, 2)]
    grads = model.backward(tape, y, final)
    assert list(grads.params) == list(model.parameters())
    assert grads.x.shape == x.shape
    assert_same_bits(model(x, final)[0], model[1](inner(x, final[0])[0], final[1])[0])


def test_parameters_go_in_and_out(rng):
    model = text_model(rng)
    names = list(model.state_dict())
    assert names[:3] == ["0.weight", "1.weight_ih_l0", "1.weight_hh_l0"]
    assert names[-2:] == ["4.weight", "4.bias"]
    assert model.num_parameters() == sum(layer.num_parameters() for layer in model)
    assert all(not array.flags.writeable for array in model.parameters().values())
    other = text_model(rng)
    before = model(WORDS)[0]
    model.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(model(WORDS)[0], other(WORDS)[0])
    assert (model(WORDS)[0] != before).any()
    np.testing.assert_array_equal(model[4].weight, other.state_dict()["4.weight"])


def test_loading_is_all_or_nothing(rng):
    model = text_model(rng)
    before, good = model.state_dict(), text_model(rng).state_dict()
    last = list(good)[-1]
    bad_states = [
        {name: array for name, array in good.items() if name != last},
        good | {"5.bias": np.ones(3)},
        good | {last: np.ones(3)},
        good | {last: np.ones(7, complex)},
    ]
    for bad in bad_states:
        with pytest.raises((ValueError, TypeError), match="state_dict"):
            model.load_state_dict(bad)
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_a_tape_serves_its_model_once(rng):
    model, other = dense_model(rng), dense_model(rng)
    y, tape = model.forward(np.ones((4, 3)))
    for stranger in (other, model[0], model[1]):
        with pytest.raises(ValueError, match=r"tape: .* another layer"):
            stranger.backward(tape, y)
    with pytest.raises(ValueError, match="tape: "):
        model.backward(model[0].forward(np.ones((4, 3)))[1], y)
    model.backward(tape, y)
    with pytest.raises(ValueError, match=r"tape: .* one backward"):
        model.backward(tape, y)


def test_models_copy_and_pickle(rng):
    model = text_model(rng)
    y, _ = model(WORDS)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_bits(twin(WORDS)[0], y)
        twin.load_state_dict({name: 2 * a for name, a in twin.state_dict().items()})
    assert_same_bits(model(WORDS)[0], y)


def test_it_is_a_sequence(rng):
    model = text_model(rng)
    assert len(model) == 5
    assert [layer is model[k] for k, layer in enumerate(model)] == [True] * 5
    assert isinstance(model[-1], fl.Linear)
    tail = model[3:]
    assert isinstance(tail, fl.Sequential)
    assert tail[0] is model[3]
    with pytest.raises(IndexError):
        model[5]


def test_recurrent_or_not(rng):
    assert text_model(rng).is_recurrent
    assert not dense_model(rng).is_recurrent
    assert not text_model(rng)[4:].is_recurrent
    assert isinstance(dense_model(rng)(np.ones((4, 3))), np.ndarray)


def test_repr(rng):
    assert repr(dense_model(rng)) == (
        "Sequential(\n"
        "  (0): Linear(in_features=3, out_features=5, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): Dropout(p=0.0)\n"
        "    (1): Linear(in_features=5, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )


@pytest.mark.parametrize(
    ("bad", "threads"),
    [
        ({0: ((np.ones((2, B, 5)), np.ones((2, B, 4))))}, None),
        ({1: (None, (np.ones((1, B, 3)),))}, None),
        ({1: ((np.ones((1, B, 4)), 1j * np.ones((1, B, 4))), None)}, None),
        ({1: (None,)}, None),
        ({2: np.ones((1, B, 3, 1))}, None),
        ({2: "text"}, None),
        ({}, 0),
        ({}, 1.5),
    ],
)
def test_a_bad_argument_leaves_the_tape(rng, bad, threads):
    """Every gradient of a state is checked before any layer uses its tape."""
    inner = fl.Sequential(
        fl.LSTM(10, 4, dtype=np.float64, rng=rng), fl.Linear(4, 3), fl.GRU(3, 2, dtype=np.float64)
    )
    model = fl.Sequential(
        fl.LSTM(3, 5, bidirectional=True, dtype=np.float64, rng=rng),
        inner,
        fl.RNN(2, 3, dtype=np.float64, rng=rng),
        fl.Linear(3, 2, dtype=np.float64, rng=rng),
    )
    x, dy = rng.standard_normal((T, B, 3)), rng.standard_normal((T, B, 2))
    for options in ({}, {"lengths": [T, 2, 0, 1]}):
        (_, state), tape = model.forward(x, **options)
        with pytest.raises((ValueError, TypeError), match=r"^(dstate|threads): "):
            model.backward(tape, dy, tuple(map(bad.get, range(3))), threads=threads)
        grads = model.backward(tape, dy, state)
        expected = model.backward(model.forward(x, **options)[1], dy, state)
        assert_same_bits(grads.x, expected.x)
        np.testing.assert_equal(grads.state, expected.state)


def twice():
    layer = fl.Linear(3, 3)
    return fl.Sequential(layer, fl.Sequential(fl.Dropout(), layer))


DENSE = dense_model(np.random.default_rng(1))
RECURRENT = fl.Sequential(fl.LSTM(3, 5), fl.LSTM(5, 2))
X = np.ones((T, B, 3))
PAIR = (np.ones((1, B, 5)), np.ones((1, B, 5)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_cells_of_one_step_are_refused(kind):
    """Their result is a state, which no other layer takes."""
    cell = getattr(fl, f"{kind}Cell")(3, 5)
    for place, layers in enumerate([(cell, fl.Linear(5, 2)), (fl.Linear(4, 3), cell)]):
        message = rf"^modules\[{place}\]: .*{kind}Cell.* use {kind}$"
        with pytest.raises(ValueError, match=message):
            fl.Sequential(*layers)
        with pytest.raises(ValueError, match=message):
            fl.Sequential(fl.Dropout(), fl.Sequential(*layers))


ROWS_FIRST, STEPS_FIRST = fl.LSTM(3, 3, batch_first=True), fl.GRU(3, 3)


@pytest.mark.parametrize(
    ("modules", "layers"),
    [
        ((ROWS_FIRST, STEPS_FIRST), ("True in modules[0], LSTM", "False in modules[1], GRU")),
        ((STEPS_FIRST, ROWS_FIRST), ("False in modules[0], GRU", "True in modules[1], LSTM")),
        (
            (fl.Dropout(0.5), ROWS_FIRST, fl.Linear(3, 3), fl.Backwards(STEPS_FIRST)),
            ("True in modules[1], LSTM", "False in modules[3], Backwards"),
        ),
        (
            (fl.Sequential(fl.Linear(3, 3), ROWS_FIRST), fl.Masking(STEPS_FIRST)),
            ("True in modules[0], LSTM", "False in modules[1], GRU"),
        ),
        (
            (fl.interop.audio.Skip(ROWS_FIRST), STEPS_FIRST),
            ("True in modules[0], Skip", "False in modules[1], GRU"),
        ),
        (
            (STEPS_FIRST, fl.Pool("mean", batch_first=True)),
            ("False in modules[0], GRU", "True in modules[1], Pool"),
        ),
    ],
)
def test_layers_of_two_layouts_are_refused(modules, layers):
    message = "{}, and {}, which would take rows for steps; give both the same".format(*layers)
    with pytest.raises(ValueError, match=f"^modules: .* got {re.escape(message)}$"):
        fl.Sequential(*modules)


class Doubled(fl.Module):
    """A layer of x beside x, under a name that modules of this library have, too."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(np.concatenate([x, x], axis=-1))


def test_a_module_of_ones_own_reads_what_it_likes(rng):
    first, second = fl.Linear(3, 4, rng=rng), fl.Linear(8, 2, rng=rng)
    x = rng.standard_normal((T, B, 3))
    expected = second(np.concatenate([first(x)] * 2, axis=-1))
    assert_same_bits(fl.Sequential(first, Doubled(second))(x), expected)
    fl.Sequential(first, Doubled(fl.GRU(8, 2)), fl.Linear(2, 2))


def test_a_module_of_ones_own_may_swap_the_axes(rng):
    first = fl.LSTM(3, 4, batch_first=True, dtype=np.float64, rng=rng)
    second = fl.GRU(4, 2, dtype=np.float64, rng=rng)
    x = rng.standard_normal((B, T, 3))
    expected, _ = second(first(x)[0].swapaxes(0, 1))
    assert_same_bits(fl.Sequential(first, Swap(), second)(x)[0], expected)
    pooled, _ = fl.Sequential(first, Swap(), second, fl.Last())(x)
    assert_same_bits(pooled, expected[-1])
    pooled, _ = fl.Sequential(first, Swap(), fl.Pool("max", batch_first=False))(x)
    assert_same_bits(pooled, first(x)[0].max(axis=1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fl.Sequential(fl.Linear(3, 5), np.tanh), TypeError, r"modules\[1\]: "),
        (lambda: fl.Sequential([fl.Linear(3, 5)]), TypeError, r"modules\[0\]: "),
        (
            lambda: fl.Sequential(fl.Embedding(9, 4), fl.LSTM(3, 5)),
            ValueError,
            r"modules\[1\]: expected a layer of 4 inputs, .* got LSTM of 3",
        ),
        (
            lambda: fl.Sequential(fl.LSTM(3, 5, bidirectional=True), fl.Linear(5, 2)),
            ValueError,
            r"modules\[1\]: expected a layer of 10 inputs, .* got Linear of 5",
        ),
        (twice, ValueError, "modules: .*0.weight is also 1.1.weight"),
        (lambda: DENSE(X, PAIR), ValueError, "state: no layer is recurrent"),
        (lambda: DENSE(X, ()), ValueError, "state: no layer is recurrent"),
        (lambda: DENSE(X, lengths=[1] * B), ValueError, "lengths: no layer is recurrent"),
        (lambda: DENSE(X, resets=np.ones((T, B), bool)), ValueError, "resets: no layer is"),
        (lambda: DENSE(X, mask=np.ones((T, B), bool)), ValueError, "mask: no layer is recurrent"),
        (lambda: DENSE(X, threads=1), ValueError, "threads: no layer is recurrent"),
        (lambda: DENSE.forward(X, PAIR), ValueError, "state: no layer is recurrent"),
        (lambda: DENSE.forward(X, lengths=[1] * B), ValueError, "lengths: no layer is recurrent"),
        (lambda: DENSE.backward(DENSE.forward(X)[1], X, ()), ValueError, "dstate: no layer is"),
        (lambda: RECURRENT(X, (PAIR,)), ValueError, "state: .* 2 recurrent layers, got 1"),
        (lambda: RECURRENT(X, np.ones((2, 3))), ValueError, "state: .* got ndarray"),
        (lambda: RECURRENT.forward(X, (PAIR,) * 3), ValueError, "state: .* got 3"),
        (
            lambda: RECURRENT.backward(RECURRENT.forward(X)[1], np.ones((T, B, 2)), (PAIR,)),
            ValueError,
            "dstate: .* got 1",
        ),
        (lambda: RECURRENT(X, (PAIR, PAIR)), ValueError, "state: "),
        (lambda: RECURRENT(X, lengths=[T + 1] * B), ValueError, "lengths: "),
        (lambda: DENSE(np.ones((T, 4))), ValueError, "x: "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
