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
