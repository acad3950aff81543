"""`backward(with_x=False)`: no gradient of x, and the bits of all other gradients."""

import numpy as np
import pytest
from random_layers import GRU_AND_RNN, OPTIONS, VARIANTS, example

import fastlstm as fl
from fastlstm.engine import Stack

LAYERS = {**OPTIONS, **VARIANTS, **GRU_AND_RNN}
LAYERS["dropout"] = {"num_layers": 3, "dropout": 0.4, "bidirectional": True}


def gradients(module, x, *state, recompute=None, backward=None, **options):
    """From dy = 1, of a module with its random numbers drawn anew."""
    result, tape = module.forward(x, *state, **options, **(recompute or {}))
    y = result[0] if module.is_recurrent else result
    dy = [np.ones_like(part) for part in y] if isinstance(y, list) else np.ones_like(y)
    return module.backward(tape, dy, **(backward or {}))


def arrays(state):
    """All arrays of a state, which may be None or have tuples and lists in it."""
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in arrays(part)]
    return [] if state is None else [state]


def check(make, x, *state, **options):
    """That a module of `make` has the same gradients but for x, and return those with x."""
    wanted = gradients(make(), x, *state, **options)
    actual = gradients(make(), x, *state, backward={"with_x": False}, **options)
    assert actual.x is None
    assert actual.params.keys() == wanted.params.keys()
    for name, array in wanted.params.items():
        np.testing.assert_array_equal(actual.params[name], array, name)
    for own, array in zip(arrays(actual.state), arrays(wanted.state), strict=True):
        np.testing.assert_array_equal(own, array)
    return wanted


@pytest.fixture
def seen(monkeypatch):
    """The `with_x` of every backward of a recurrent layer."""
    many = []
    backward = Stack.backward

    def watched(self, *arguments, with_x=True, **options):
        many.append(with_x)
        return backward(self, *arguments, with_x=with_x, **options)

    monkeypatch.setattr(Stack, "backward", watched)
    return many


@pytest.mark.parametrize("recompute", [None, {"recompute": 3}], ids=["", "recompute"])
@pytest.mark.parametrize("name", LAYERS)
def test_bits(kernels, name, recompute):
    def made():
        return example(np.random.default_rng(3), 11, 7, 3, **{"H": 4, **LAYERS[name]}, lengths=True)

    one = made()
    grads = check(lambda: made().layer, one.x, one.state, recompute=recompute, **one.options)
    assert grads.x.shape == one.x.shape


def test_threads(compiled, share_all_work, rng):
    x = rng.standard_normal((9, 8, 3)).astype(np.float32)
    check(lambda: fl.LSTM(3, 40, num_layers=2, bidirectional=True, rng=0), x, threads=3)


def test_forms_of_x(kernels, rng):
    x = rng.standard_normal((9, 4, 3))
    for batch in (x[:, 0], x.tolist(), [x[:4, 0], x[:, 1], x[:0, 2]], x[:0], x[:, :0]):
        check(lambda: fl.GRU(3, 5, rng=0), batch)
    check(lambda: fl.LSTM(3, 5, batch_first=True, rng=0), x.swapaxes(0, 1), lengths=[3, 9, 0, 1])
    check(lambda: fl.LSTM(3, 5, rng=0), x, mask=rng.random((9, 4)) < 0.6)


class Own(fl.Module):
    """A recurrent module that knows nothing of `with_x`."""

    is_recurrent = True

    def __init__(self):
        self.lstm = fl.LSTM(3, 4, rng=0)

    def forward(self, x, state=None):
        return self.lstm.forward(x, state)

    def backward(self, tape, dy=None, dstate=None):
        grads = self.lstm.backward(tape, dy, dstate)
        own = self.collect(x=grads.x, lstm=grads)
        own.state = grads.state
        return own


class Older(fl.LSTM):
    """A layer whose own `backward` knows nothing of `with_x`."""

    def backward(self, tape, dy=None, dstate=None, *, threads=None):
        return super().backward(tape, dy, dstate, threads=threads)


class Ends(fl.Module):
    """The last step of an LSTM: not recurrent, and it may leave out the gradient of x."""

    pools_steps = True

    def __init__(self):
        self.lstm = fl.LSTM(3, 4, rng=0)

    def forward(self, x, lengths=None):
        (y, _), tape = self.lstm.forward(x)
        return y[-1], (y.shape, tape)

    def backward(self, tape, dy, with_x=True):
        (*steps, features), inner = tape
        all_dy = np.zeros((*steps, features), np.float32)
        all_dy[-1] = dy
        grads = self.lstm.backward(inner, all_dy, with_x=with_x)
        return self.collect(x=grads.x, lstm=grads)


@pytest.mark.parametrize(
    ("modules", "first"),
    [
        (lambda: [fl.LSTM(3, 4, rng=0), fl.Linear(4, 2, rng=0)], [False]),
        (lambda: [fl.LSTM(3, 4, rng=0), fl.GRU(4, 2, rng=0)], [True, False]),
        (lambda: [fl.Sequential(fl.LSTM(3, 4, rng=0), fl.LSTM(4, 5, rng=0))], [True, False]),
        (lambda: [fl.Linear(3, 4, rng=0), fl.LSTM(4, 5, rng=0)], [True]),
        (lambda: [Own(), fl.LSTM(4, 5, rng=0)], [True, True]),
        (lambda: [Older(3, 4, rng=0), fl.LSTM(4, 5, rng=0)], [True, True]),
        (lambda: [Ends(), fl.Linear(4, 5, rng=0)], [False]),
        (lambda: [fl.Sequential(fl.Linear(3, 4, rng=0)), fl.LSTM(4, 5, rng=0)], [True]),
        (lambda: [fl.Linear(3, 4, rng=0)], []),
        (list, []),
    ],
)
def test_sequential(kernels, rng, seen, modules, first):
    x = rng.standard_normal((9, 4, 3))
    check(lambda: fl.Sequential(*modules()), x)
    assert seen == [True] * len(first) + first


def test_lists(kernels, rng, seen):
    x = [rng.standard_normal((T, 3)) for T in (3, 9)]
    check(lambda: fl.Sequential(fl.LSTM(3, 4, rng=0), fl.Linear(4, 2, rng=0)), x)
    assert seen == [True, False]
    inner = fl.Sequential(fl.Linear(3, 4, rng=0))
    check(lambda: fl.Sequential(inner, fl.LSTM(4, 5, rng=0)), x)


def test_embedding_first(kernels, seen):
    model = fl.Sequential(fl.Embedding(9, 4, rng=0), fl.LSTM(4, 5, rng=0))
    grads = check(lambda: model, np.array([[1, 2], [8, 3]]))
    assert grads.params["0.weight"].any()
    assert seen == [True, True]


def test_trainer(rng, seen):
    model = fl.Sequential(fl.LSTM(3, 4, rng=0), fl.LSTM(4, 5, rng=0), fl.Last())
    trainer = fl.Trainer(model, fl.losses.mse, fl.optim.SGD(0.1))
    x, y = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 5))
    trainer.fit(x, y, epochs=1, batch_size=2, progress=False)
    assert seen == [True, False]


def test_bad_input():
    lstm = fl.LSTM(3, 4, rng=0)
    model = fl.Sequential(lstm)
    for module in (lstm, model):
        (y, _), tape = module.forward(np.ones((2, 1, 3)))
        with pytest.raises(TypeError, match="with_x: expected True or False, got 1"):
            module.backward(tape, y, with_x=1)
        module.backward(tape, y)  # the tape was not used
