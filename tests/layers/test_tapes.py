"""A tape has what its backward needs, whatever the caller changes meanwhile, and serves one."""

import copy
import pickle
import threading

import numpy as np
import pytest
from compare import assert_same_bits
from random_layers import each, example
from toys import Leaky, LeakyStep

import fastlstm as fl
from fastlstm.engine import Stack

LAYERS = {
    "LSTM": {},
    "projected": {"num_layers": 2, "proj_size": 2, "bidirectional": True},
    "layer norm": {"layer_norm": True},
    "batch first": {"batch_first": True},
    "widths": {"H": [4, 6, 3]},
    "dropout": {"num_layers": 3, "dropout": 0.4, "bidirectional": True},
    "GRU": {"kind": "GRU"},
    "GRU, reset first": {"kind": "GRU", "linear_before_reset": False, "num_layers": 2},
    "RNN": {"kind": "RNN"},
}
SIZES = {"one step": (1, 1, 1, 40), "small": (7, 5, 3, 4), "large": (40, 33, 20, 35)}  # T, B, I, H


def over(function, value):
    """`function` of all arrays in tuples and lists."""
    if isinstance(value, (tuple, list)):
        return type(value)(over(function, part) for part in value)
    return None if value is None else function(value)


def leaves(value):
    """All arrays in tuples and lists."""
    found = []
    over(found.append, value)
    return found


def spoil(array):
    """Change every element, also where `array` is a read-only view of another."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    array[...] = {"b": np.logical_not, "i": np.zeros_like, "f": np.negative}[array.dtype.kind](
        array
    )


def train(layer, arguments, options, between=None):
    """All gradients; `between` is called for every argument between forward and backward."""
    layer = copy.deepcopy(layer)  # with the same random numbers
    result, tape = layer.forward(*arguments, **options)
    gradients = over(np.ones_like, result)
    if between:
        over(between, [*arguments, *options.values()])
    grads = layer.backward(tape, *(gradients if layer.is_recurrent else [gradients]))
    return leaves([grads.x, grads.state, *grads.params.values()])


def assert_spared(layer, *arguments, **options):
    expected = train(layer, arguments, options)
    for pair in zip(train(layer, arguments, options, spoil), expected, strict=True):
        assert_same_bits(*pair)


def strided(part):
    """A part of a state as a view of an array of all parts."""
    return np.concatenate([part, part], -1)[..., : part.shape[-1]]


def read_only_view(array):
    view = array.copy()[:]
    view.flags.writeable = False
    return view


FORMS = {
    "arrays": np.copy,
    "strided": strided,
    "columns": lambda array: np.repeat(array, 2, -1)[..., ::2],
    "transposed": np.asfortranarray,
    "float64": np.float64,
    "read-only views": read_only_view,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_arguments_may_change_before_backward(kernels, rng, options, size, form):
    sizes = dict(zip("TBIH", size, strict=True))
    case = example(rng, **sizes | {"lengths": True, "resets": True} | options)
    if case.layer.batch_first:
        case.x = case.x.swapaxes(0, 1).copy()
        case.options["resets"] = case.options["resets"].T.copy()
    for walk in ({}, case.options):
        assert_spared(case.layer, form(case.x), over(form, case.state), **walk)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_a_list_may_change_before_backward(kernels, rng, options):
    case = example(rng, **options)
    x = [rng.standard_normal((length, 3)).astype(np.float32) for length in (4, 2, 7, 0, 1)]
    resets = [rng.random(len(part)) < 0.4 for part in x]
    assert_spared(case.layer, x, case.state, resets=resets)


@pytest.mark.parametrize("batch", [(), (1,), (33,)])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", [fl.LSTMCell, fl.GRUCell, fl.RNNCell])
def test_a_cell(kernels, rng, kind, form, batch):
    x, h, c = (rng.standard_normal((*batch, size)).astype(np.float32) for size in (3, 8, 8))
    assert_spared(kind(3, 8, rng=0), form(x), over(form, (h, c) if kind is fl.LSTMCell else h))


def test_a_state_that_is_updated_in_place(kernels, rng):
    """h[...] = h_new after every step, and one buffer of x for all."""
    cell, steps = fl.LSTMCell(3, 8, rng=0), rng.standard_normal((5, 2, 3)).astype(np.float32)

    def gradients(x, state, store):
        tapes, total = [], 0
        for step in steps:
            x[...] = step
            new, tape = cell.forward(x, state)
            tapes.append(tape)
            x, state = store(x, state, new)
        dstate = tuple(map(np.ones_like, state))
        for tape in reversed(tapes):
            grads = cell.backward(tape, dstate)
            dstate, total = grads.state, total + grads.params["weight_hh"]
        return total

    def in_place(x, state, new):
        for part, value in zip(state, new, strict=True):
            part[...] = value
        return x, state

    start = np.zeros((2, 3), np.float32), tuple(np.ones((2, 2, 8), np.float32))
    expected = gradients(*start, lambda x, state, new: (x.copy(), new))
    assert_same_bits(gradients(*start, in_place), expected)


DENSE = {
    "Linear": fl.Linear(3, 4, rng=0),
    "Sequential of Linear": fl.Sequential(fl.Linear(3, 4, rng=0), fl.Linear(4, 2, rng=1)),
    "Linear, then LSTM": fl.Sequential(fl.Linear(3, 4, rng=0), fl.LSTM(4, 2, rng=1)),
    "LSTMs, then Linear": fl.Sequential(
        fl.LSTM(3, 4, rng=0), fl.GRU(4, 5, rng=0), fl.Dropout(0.3, rng=2), fl.Linear(5, 2, rng=1)
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("layer", DENSE.values(), ids=DENSE)
def test_other_layers(kernels, rng, layer, form):
    x = rng.standard_normal((7, 5, 3)).astype(np.float32)
    assert_spared(layer, form(x))


@pytest.mark.parametrize("dtype", [np.intp, np.int32])
def test_an_embedding(kernels, rng, dtype):
    indices, embedding = rng.integers(1, 6, (7, 5)).astype(dtype), fl.Embedding(6, 3, rng=0)
    assert_spared(embedding, indices)
    assert_spared(fl.Sequential(embedding, fl.LSTM(3, 4, rng=0)), indices)


def test_y_of_training_cannot_be_opened(kernels, rng):
    case = example(rng, num_layers=2)
    (y, _), tape = case.forward()
    for view in (y, y[:], y[::2, 1], y.reshape(-1), y.T):
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0
    above = example(rng, I=4)
    (_, _), tape = above.layer.forward(y)
    assert tape.arguments[0] is y  # what nobody can change needs no copy


def make_tapes(rng):
    """For every kind of layer: the layer, a forward's tape, a right gradient and a wrong one."""
    x, indices = rng.standard_normal((4, 3, 5)).astype(np.float32), rng.integers(0, 6, (4, 3))
    lstm, cell = fl.LSTM(5, 4, 2, rng=0), fl.GRUCell(5, 4, rng=0)
    dense = [
        (fl.Linear(5, 4, rng=0), x),
        (fl.Embedding(6, 4, rng=0), indices),
        (fl.Dropout(0.5, rng=0), x[:, :, :4]),
        (fl.Sequential(fl.Linear(5, 7, rng=0), fl.Linear(7, 4, rng=0)), x),
        (lstm, x),
        (fl.LSTM(5, [6, 4], rng=0), x),
        (fl.Sequential(fl.LSTM(5, 6, rng=0), fl.LSTM(6, 4, rng=0)), x),
        (fl.Sequential(fl.LSTM(5, 6, rng=0), fl.Linear(6, 4, rng=0)), x),
    ]
    made = [(*pair, np.ones((4, 3, 4), np.float32), np.ones((4, 3, 3))) for pair in dense]
    weights = [rng.standard_normal((1, 9, size)).astype(np.float32) for size in (5, 3)]
    operator = fl.onnx.GRU(*weights, hidden_size=3)
    made.append((operator, x, np.ones((4, 1, 3, 3), np.float32), np.ones(3)))
    made.append((cell, x[0], np.ones((3, 4), np.float32), np.ones((3, 5))))
    return made


def test_a_wrong_gradient_leaves_the_tape_as_it_was(kernels, rng):
    for layer, x, right, wrong in make_tapes(rng):
        layer, again = copy.deepcopy(layer), copy.deepcopy(layer)
        expected = again.backward(again.forward(x)[1], right)
        tape = layer.forward(x)[1]
        for bad, error in ((wrong, ValueError), (right.astype(complex), TypeError)):
            with pytest.raises(error):
                layer.backward(tape, bad)
        grads = layer.backward(tape, right)
        for name, gradient in expected.params.items():
            assert_same_bits(grads.params[name], gradient, name)
        with pytest.raises(ValueError, match="tape: expected one not used yet"):
            layer.backward(tape, right)


def test_two_threads_share_no_tape(kernels, rng):
    for layer, x, right, _ in make_tapes(rng):
        tapes = [layer.forward(x)[1] for _ in range(50)]
        outcomes, start = [], threading.Barrier(2)

        def work(layer=layer, tapes=tapes, right=right, outcomes=outcomes, start=start):
            for tape in tapes:
                start.wait()
                try:
                    outcomes.append(layer.backward(tape, right) is not None)
                except ValueError:
                    outcomes.append(False)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert (sum(outcomes), len(outcomes)) == (50, 100), type(layer).__name__


def test_a_second_backward_during_the_first(rng):
    """Refused; the first goes on."""
    attempts = []

    class Nested(Leaky):
        def pack(self, kernels, parameters, backward):
            return NestedStep(**parameters)

    class NestedStep(LeakyStep):
        def step_backward(self, *arguments):
            with pytest.raises(ValueError, match="not used yet") as refusal:
                stack.backward(tape, np.ones((4, 3, 5)))
            attempts.append(refusal)
            return super().step_backward(*arguments)

    stack = Stack([[Nested(2, 5)]], dtype=np.float64, rng=0)
    x = rng.standard_normal((4, 3, 2))
    (y, _), tape = stack.forward(x)
    assert stack.backward(tape, np.ones_like(y)).x.shape == x.shape
    assert len(attempts) >= 4


def test_a_state_by_columns_of_one_array(kernels, rng):
    """h and c beside each other, with every gradient that backward takes."""
    for T, B in ((1, 1), (4, 3), (100, 32)):
        case = example(rng, T, B)
        hc = np.concatenate(case.state, -1)
        y, _ = case()
        for dy in (None, np.ones_like(y), np.ones(y.shape)):
            for threads in (None, 1, 2):
                for options in ({}, {"dstate": tuple(np.split(hc, 2, -1))}):
                    own = case.layer.forward(case.x, tuple(np.split(hc, 2, -1)))[1]
                    grads = case.layer.backward(own, dy, threads=threads, **options)
                    expected = case.layer.forward(case.x, each(np.copy, case.state))[1]
                    expected = case.layer.backward(expected, dy, threads=threads, **options)
                    assert_same_bits(grads.params["weight_hh_l0"], expected.params["weight_hh_l0"])


@pytest.mark.parametrize("layer", [fl.LSTM(3, 4), fl.Linear(3, 4), fl.Sequential(fl.GRU(3, 4))])
@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_tape_is_not_pickled_or_copied(layer, how):
    _, tape = layer.forward(np.ones((5, 2, 3)))
    with pytest.raises(TypeError, match=r"^tape: cannot be pickled or copied: .* layer$"):
        how(tape)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_wrong_dy_beside_lengths(kernels, batch_first):
    """Only numbers after a row's end may be beyond the dtype's range."""
    layer = fl.GRU(3, 4, batch_first=batch_first)
    shape = (2, 5, 4) if batch_first else (5, 2, 4)
    _, tape = layer.forward(np.ones((*shape[:2], 3)), lengths=[5, 2])
    huge, wrong = np.ones(shape), np.full((3, 7, 4), 1e300)
    huge[(1, 4) if batch_first else (4, 1)] = 1e300
    late = np.full((2, 7, 4) if batch_first else (7, 2, 4), 1e300)
    for dy in (wrong, wrong[:, :2], late, np.full(shape, 1e300)):
        with pytest.raises(ValueError, match=r"^dy: expected"):
            layer.backward(tape, dy)
    grads = layer.backward(tape, huge)
    assert np.isfinite(grads.x).all()
