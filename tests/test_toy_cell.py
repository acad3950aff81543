"""Cells from outside the package, on the engine: see support/toys.py."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from compare import assert_close, assert_same_bits, assert_same_result
from slopes import assert_slope_along
from toys import EQUATIONS, Forgetful, Leaky, LeakyStep, Momentum

import fastlstm as fl
from fastlstm.engine import OneStep, Stack

T, B, I, H = 6, 5, 3, 4
BOTH = (False, True)


class Case:
    """A stack of a cell with an input and a state, all of them random."""

    def __init__(
        self,
        cell,
        rng,
        dtype=np.float64,
        layers=1,
        reverse=(False,),
        lengths=False,
        resets=False,
        **options,
    ):
        self.cell, self.layers, self.reverse = cell, layers, reverse
        cells, inputs = [], I
        for _ in range(layers):
            cells.append([cell(inputs, H) for _ in reverse])
            inputs = len(reverse) * H
        self.stack = Stack(cells, reverse=reverse, dtype=dtype, rng=0, **options)
        arrays = self.stack.state_dict()
        for name, array in arrays.items():  # learned states begin as zeros
            arrays[name] = rng.uniform(-0.7, 0.7, array.shape)
        self.stack.load_state_dict(arrays)
        self.x = rng.standard_normal((T, B, I)).astype(dtype)
        shapes = [(layers * len(reverse), B, size) for size in cell(I, H).sizes]
        self.state = in_form([rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes])
        self.walk = {}
        if lengths:
            self.walk["lengths"] = np.array([4, 0, T, 1, 3])
        if resets:
            self.walk["resets"] = rng.random((T, B)) < 0.3

    def call(self):
        return self.stack(self.x, self.state, **self.walk)

    def train(self):
        """The result of a forward and its backward, on a copy: every time it draws the same."""
        stack = copy.deepcopy(self.stack)
        result, tape = stack.forward(self.x, self.state, **self.walk)
        return result, partial(stack.backward, tape)

    def by_loops(self, state=None, between=1.0):
        """y and the final state, row by row; `between` scales what a layer hands to the next."""
        x, final = self.x, [part.copy() for part in parts(self.state if state is None else state)]
        resets = self.walk.get("resets")
        for layer in range(self.layers):
            y = np.zeros((T, B, len(self.reverse) * H))
            for d, backwards in enumerate(self.reverse):
                suffix = f"_l{layer}_reverse" if d else f"_l{layer}"
                own = {
                    name: getattr(self.stack, name + suffix) for name in self.cell(I, H).shapes()
                }
                place, columns = layer * len(self.reverse) + d, slice(d * H, (d + 1) * H)
                for row in range(B):
                    now = tuple(part[place, row] for part in final)
                    steps = range(self.walk["lengths"][row] if "lengths" in self.walk else T)
                    for t in reversed(steps) if backwards else steps:
                        border = t + backwards  # a reset separates border - 1 and border
                        if resets is not None and border in steps and resets[border, row]:
                            now = tuple(np.zeros_like(part) for part in now)
                        now = EQUATIONS[self.cell](x[t, row], *now, **own)
                        y[t, row, columns] = now[0]
                    for part, value in zip(final, now, strict=True):
                        part[place, row] = value
            x = between * y
        return y, in_form(final)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def in_form(state):
    """The arrays of a state as a stack takes them."""
    return tuple(state) if len(state) > 1 else state[0]


def assert_as_expected(result, expected, dtype):
    (y, state), (expected_y, expected_state) = result, expected
    assert_close(y, expected_y, dtype, "y")
    assert type(state) is type(expected_state)
    for part, expected_part in zip(parts(state), parts(expected_state), strict=True):
        assert_close(part, expected_part, dtype, "state")


@pytest.fixture(params=[Leaky, Momentum], ids=lambda cell: cell.__name__)
def cell(request):
    return request.param


FORMS = {
    "plain": {},
    "lengths": {"lengths": True},
    "resets": {"resets": True},
    "two layers": {"layers": 2, "lengths": True, "resets": True},
    "reverse": {"reverse": (True,), "lengths": True},
    "both directions": {"reverse": BOTH, "lengths": True},
    "two layers, both directions": {"reverse": BOTH, "layers": 2},
}
all_forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@all_forms
def test_values(kernels, dtype, rng, cell, form):
    case = Case(cell, rng, dtype, **form)
    assert_as_expected(case.call(), case.by_loops(), dtype)
    assert_as_expected(case.train()[0], case.by_loops(), dtype)


def assert_slopes(case, rng):
    """backward gives what finite differences of the forward give."""
    (y, state), backward = case.train()
    dy, dstate = rng.standard_normal(y.shape), [rng.standard_normal(p.shape) for p in parts(state)]
    grads = backward(dy, in_form(dstate))

    def loss():
        y, state = case.train()[0]
        return np.vdot(dy, y) + sum(map(np.vdot, dstate, parts(state)))

    assert_slope_along(grads.x, loss, case.x, rng, "x")
    if case.state is not None:
        for part, actual in zip(parts(case.state), parts(grads.state), strict=True):
            assert_slope_along(actual, loss, part, rng, "state")
    arrays = case.stack.state_dict()
    assert list(grads.params) == list(arrays)

    def loss_of_arrays():
        case.stack.load_state_dict(arrays)
        return loss()

    for name, array in arrays.items():
        assert_slope_along(grads.params[name], loss_of_arrays, array, rng, name)


@all_forms
def test_finite_differences(kernels, rng, cell, form):
    assert_slopes(Case(cell, rng, **form), rng)


def test_finite_differences_through_dropout(kernels, rng, cell):
    assert_slopes(Case(cell, rng, layers=2, lengths=True, dropout=0.4), rng)


def test_finite_differences_of_a_learned_state(kernels, rng, cell):
    case = Case(cell, rng, layers=2, reverse=BOTH, learn_initial_state=True)
    case.state = None
    assert_slopes(case, rng)


def test_a_cell_that_draws(kernels, rng):
    case = Case(Forgetful, rng, layers=2, lengths=True)
    assert_as_expected(case.call(), case.by_loops(), np.float64)
    assert (case.train()[0][0] != case.call()[0]).any()
    assert_slopes(case, rng)


def test_dropout_between_layers(kernels, rng, cell):
    case = Case(cell, rng, layers=2, reverse=BOTH, lengths=True, dropout=1.0)
    assert_as_expected(case.call(), case.by_loops(), np.float64)
    assert_as_expected(case.train()[0], case.by_loops(between=0.0), np.float64)


def test_learned_state(kernels, rng, cell):
    case = Case(cell, rng, layers=2, reverse=BOTH, lengths=True, learn_initial_state=True)
    names = [f"initial_{{}}_l{k}{side}" for k in (0, 1) for side in ("", "_reverse")]
    learned = [
        np.stack([np.tile(getattr(case.stack, name.format(part)), (B, 1)) for name in names])
        for part in cell.state
    ]
    result = case.stack(case.x, **case.walk)
    assert_as_expected(result, case.by_loops(in_form(learned)), np.float64)


def test_out(kernels, dtype, rng, cell):
    case = Case(cell, rng, dtype, reverse=BOTH, lengths=True)
    out = np.full((B, T, 2 * H), np.nan, dtype).swapaxes(0, 1)
    y, state = case.stack(case.x, case.state, **case.walk, out=out)
    assert y is out
    assert_as_expected((y, state), case.by_loops(), dtype)


def test_list(kernels, dtype, rng, cell):
    case = Case(cell, rng, dtype, layers=2, lengths=True)
    lengths = case.walk["lengths"]
    sequences = [case.x[:length, row] for row, length in enumerate(lengths)]
    (y, state), (expected, expected_state) = case.stack(sequences, case.state), case.by_loops()
    for row, length in enumerate(lengths):
        assert_close(y[row], expected[:length, row], dtype, f"y of row {row}")
    (y, _), tape = case.stack.forward(sequences, case.state)
    grads = case.stack.backward(tape, y)
    assert [dx.shape for dx in grads.x] == [x.shape for x in sequences]
    for part, expected_part in zip(parts(state), parts(expected_state), strict=True):
        assert_close(part, expected_part, dtype, "state")


def test_one_sequence_and_batch_first(kernels, dtype, rng, cell):
    case = Case(cell, rng, dtype, layers=2, batch_first=True)
    expected, expected_state = case.by_loops()
    y, state = case.stack(case.x.swapaxes(0, 1), case.state)
    assert_as_expected((y.swapaxes(0, 1), state), (expected, expected_state), dtype)
    y, state = case.stack(case.x[:, 2], in_form([part[:, 2] for part in parts(case.state)]))
    expected_state = in_form([part[:, 2] for part in parts(expected_state)])
    assert_as_expected((y, state), (expected[:, 2], expected_state), dtype)


def test_threads(kernels, dtype, rng, cell, share_all_work):
    case = Case(cell, rng, dtype, layers=2, reverse=BOTH, lengths=True)
    result = case.stack(case.x, case.state, **case.walk, threads=2)
    assert_same_result(result, case.call())


def test_chunks_that_carry_the_state(kernels, dtype, rng, cell):
    case = Case(cell, rng, dtype, layers=2, resets=True)
    ys, state = [], case.state
    for steps in (slice(0, 1), slice(1, 4), slice(4, None)):
        y, state = case.stack(case.x[steps], state, resets=case.walk["resets"][steps])
        ys.append(y)
    assert_same_result((np.concatenate(ys), state), case.call())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(kernels, rng, cell, clone):
    case = Case(cell, rng, layers=2, reverse=BOTH, lengths=True)
    expected = case.call()
    case.stack = clone(case.stack)
    assert_same_result(case.call(), expected)


def test_one_step(kernels, dtype, rng, cell):
    case = Case(cell, rng, dtype)
    step = OneStep(cell(I, H), dtype=dtype)
    step.load_state_dict({name: getattr(case.stack, name + "_l0") for name in step.parameters()})
    state = in_form([part[0] for part in parts(case.state)])
    for t in range(T):
        state = step(case.x[t], state)
    _, expected = case.by_loops()
    for part, expected_part in zip(parts(state), parts(expected), strict=True):
        assert_close(part, expected_part[0], dtype, "state")
    state, tape = step.forward(case.x[0], state)
    grads = step.backward(tape, state)
    assert [part.shape for part in parts(grads.state)] == [part.shape for part in parts(state)]
    assert list(grads.params) == list(step.parameters())


def test_training_in_a_sequential(kernels, rng, cell):
    """The last output learns to tell the sign of the first input."""
    stack = Stack([[cell(1, 8)], [cell(8, 8)]], dropout=0.1, rng=rng)
    model = fl.Sequential(stack, fl.Linear(8, 1, rng=rng))
    optimizer, x = fl.optim.Adam(lr=0.02), rng.standard_normal((5, 64, 1))
    losses = []
    for _ in range(60):
        (y, _), tape = model.forward(x)
        dy = np.zeros_like(y)
        loss, dy[-1] = fl.losses.mse(y[-1], np.sign(x[0]))
        optimizer.step(model, model.backward(tape, dy))
        losses.append(loss)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("cells", "reverse"),
    [
        ([], (False,)),
        ([[Leaky(3, 4)]], (False, True)),
        ([[Leaky(3, 4)], [Leaky(5, 4)]], (False,)),
        ([[Leaky(3, 4), Leaky(3, 5)]], (False, True)),
        ([[Leaky(3, 4)], [Momentum(4, 4)]], (False,)),
    ],
)
def test_cells_that_do_not_fit(cells, reverse):
    with pytest.raises(ValueError, match="cells"):
        Stack(cells, reverse=reverse)


class Misnamed(Leaky):
    def pack(self, kernels, parameters, backward):
        packed = LeakyStep(**parameters)
        packed.names = ("weight_hh", "weight_ih", "bias", "decay")  # of equal shapes, in H = I
        return packed


def test_names_in_another_order(kernels):
    with pytest.raises(ValueError, match="names"):
        Stack([[Misnamed(4, 4)]])(np.ones((2, 1, 4)))


def test_beside_a_cell_of_the_library(kernels, rng):
    native = fl.RNN(4, 4, dtype=np.float64).cells.by_layer[0][0]
    stack = Stack([[Leaky(3, 4)], [native]], dtype=np.float64, rng=rng)
    (y, _), tape = stack.forward(rng.standard_normal((5, 2, 3)))
    assert set(stack.backward(tape, y).params) == set(stack.parameters())


OF_THIS_LIBRARY = {  # with states of the same sizes
    "RNN, GRU": (fl.RNN(I, 40, rng=1), fl.GRU(I, 40, rng=2)),
    "RNN, GRU of the paper": (
        fl.RNN(I, 40, rng=1),
        fl.GRU(I, 40, linear_before_reset=False, rng=2),
    ),
    "LSTMs": (fl.LSTM(I, 40, rng=1), fl.LSTM(I, 40, layer_norm=True, peepholes=True, rng=2)),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("layers", OF_THIS_LIBRARY.values(), ids=OF_THIS_LIBRARY)
def test_two_kinds_of_cell_as_directions(compiled, rng, layers, order):
    """Scratch memory is measured by both."""
    cells = [layer.cells.by_layer[0][0] for layer in layers[::order]]
    both = Stack([cells], reverse=BOTH, rng=0)
    x = rng.standard_normal((T, 70, I)).astype(np.float32)
    y, _ = both(x)
    (trained, _), tape = both.forward(x)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    grads = both.backward(tape, dy)
    dx = 0.0
    for k, (cell, part) in enumerate(zip(cells, np.split(dy, 2, axis=-1), strict=True)):
        suffix = "_reverse" if k else ""
        alone = Stack([[cell]], reverse=(bool(k),), rng=0)
        names = {name.removesuffix("_reverse"): name for name in alone.state_dict()}
        alone.load_state_dict(
            {own: both.state_dict()[name + suffix] for name, own in names.items()}
        )
        (expected, _), own_tape = alone.forward(x)
        for result in (y, trained):
            assert_same_bits(result[..., 40 * k : 40 * (k + 1)], expected)
        own = alone.backward(own_tape, part)
        for name, array in own.params.items():
            assert_same_bits(grads.params[name.removesuffix("_reverse") + suffix], array)
        dx = dx + own.x
    assert_close(grads.x, dx, np.float32)
