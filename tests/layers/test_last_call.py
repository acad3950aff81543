"""Calls use what the call before has looked up, but never after a change."""

import copy
import pickle

import numpy as np
import pytest

import fastlstm as fl


@pytest.fixture(autouse=True)
def no_choices(monkeypatch):
    """As in a process in which no `use_backend` was ever called."""
    monkeypatch.setattr("fastlstm.kernels._any_choice", False)


@pytest.fixture
def lstm():
    return fl.LSTM(3, 5, num_layers=2, rng=0)


def called(lstm, x):
    """The results of inference and of training, each twice: the second finds what the first did."""
    results = []
    for _ in range(2):
        y, _ = lstm(x)
        (y_training, _), tape = lstm.forward(x)
        grads = lstm.backward(tape, np.ones_like(y))
        results.append([y, y_training, grads.x, *grads.params.values()])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    return results[0]


def assert_same(lstm, other, x):
    for got, wanted in zip(called(lstm, x), called(other, x), strict=True):
        np.testing.assert_array_equal(got, wanted)


X = np.random.default_rng(1).standard_normal((7, 2, 3)).astype(np.float32)


def test_new_parameters(lstm):
    other = fl.LSTM(3, 5, num_layers=2, rng=1)
    called(lstm, X)
    lstm.load_state_dict(other.state_dict())
    assert_same(lstm, other, X)


def test_a_tape_keeps_its_parameters(lstm):
    other = copy.deepcopy(lstm)
    called(lstm, X)
    (y, _), tape = lstm.forward(X)
    lstm.load_state_dict(fl.LSTM(3, 5, num_layers=2, rng=1).state_dict())
    called(lstm, X)
    (_, _), other_tape = other.forward(X)
    grads, wanted = lstm.backward(tape, y), other.backward(other_tape, y)
    np.testing.assert_array_equal(grads.x, wanted.x)
    for name, gradient in wanted.params.items():
        np.testing.assert_array_equal(grads.params[name], gradient)


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda lstm: pickle.loads(pickle.dumps(lstm))]
)
def test_a_copy_has_parameters_of_its_own(lstm, copied):
    called(lstm, X)
    twin, other = copied(lstm), fl.LSTM(3, 5, num_layers=2, rng=1)
    assert_same(twin, lstm, X)
    twin.load_state_dict(other.state_dict())
    assert_same(twin, other, X)
    assert_same(lstm, fl.LSTM(3, 5, num_layers=2, rng=0), X)


def test_attributes_and_parameters_in_turn():
    """A Sequential sees a change of either kind, alone and after one of the other kind."""
    model = fl.Sequential(fl.Linear(3, 4, rng=0), fl.Dropout(0.0), fl.Linear(4, 2, rng=0))
    for p in (0.0, 1.0, 0.0):
        model[1].p = p
        for seed in (1, 2):
            first, last = fl.Linear(3, 4, rng=seed), fl.Linear(4, 2, rng=seed)
            model.load_state_dict(fl.Sequential(first, fl.Dropout(), last).state_dict())
            np.testing.assert_array_equal(model.forward(X)[0], last((1 - p) * first(X)))


def test_another_layer_in_its_place():
    """The parameters of a model are those of the children that it has now."""

    class Model(fl.Module):
        def __init__(self):
            self.inner = fl.Sequential(fl.Linear(3, 3, rng=0))

    model = Model()
    assert list(model.parameters()) == ["inner.0.weight", "inner.0.bias"]
    model.inner = fl.Linear(3, 3, bias=False, rng=1)
    assert list(model.parameters()) == ["inner.weight"]
    model.assign({"inner.weight": np.ones((3, 3), np.float32)})
    assert (model.inner.weight == 1).all()
    model.other = fl.Linear(2, 2, bias=False, rng=1)
    assert list(model.parameters()) == ["inner.weight", "other.weight"]
    del model.inner
    assert list(model.parameters()) == ["other.weight"]


@pytest.mark.parametrize("threads", [None, 1, 2, np.int64(2)])
def test_calls_with_threads_in_turn(lstm, threads):
    """Each checks its own argument, whatever the call before was given."""
    expected, _ = lstm(X)
    for _ in range(2):
        np.testing.assert_array_equal(lstm(X, threads=threads)[0], expected)
        for wrong in (True, 1.0, 0):
            with pytest.raises((TypeError, ValueError), match="threads"):
                lstm(X, threads=wrong)
    lstm.load_state_dict(fl.LSTM(3, 5, num_layers=2, rng=1).state_dict())
    assert (lstm(X, threads=threads)[0] != expected).any()


def test_another_backend(lstm):
    called(lstm, X)
    with fl.use_backend("reference"):
        (_, _), tape = lstm.forward(X)
        assert tape.kernels.__name__ == "fastlstm.kernels.reference"
        lstm(X)
        lstm._parameters.derived.clear()
        lstm(X)
        assert {key[0] for key in lstm._parameters.derived} == {tape.kernels}
    (_, _), tape = lstm.forward(X)
    assert tape.kernels.__name__ != "fastlstm.kernels.reference"


@pytest.mark.skipif(fl.get_num_threads() == 1, reason="on one core nobody is called")
def test_another_number_of_threads():
    pool = pytest.importorskip("fastlstm.kernels._pool", reason="no compiled kernels")
    lstm, x = fl.LSTM(64, 256, rng=0), np.ones((40, 32, 64), np.float32)
    before = fl.get_num_threads()
    try:
        called(lstm, x)
        fl.set_num_threads(1)
        visited = pool.visited()
        called(lstm, x)
        assert pool.visited() == visited
    finally:
        fl.set_num_threads(before)
