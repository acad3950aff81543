"""Calls that cannot work say why, and name what the user gave."""

import warnings

import numpy as np
import pytest
from compare import assert_same_bits
from random_layers import GRU_AND_RNN, example

import fastlstm as fl

I, H = 3, 4


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"hidden_size": [4]}], ids=str)
def test_dropout_of_one_layer_warns(kernels, rng, kind, options):
    options = {"input_size": I, "hidden_size": H} | options
    with pytest.warns(UserWarning, match="^dropout: .*num_layers=1") as caught:
        layer = getattr(fl, kind)(**options, dropout=0.5, rng=rng)
    assert [warning.filename for warning in caught] == [__file__]
    assert layer.dropout == 0.5
    x = rng.standard_normal((6, 2, I))
    (y, _), _ = layer.forward(x)
    assert_same_bits(y, layer(x)[0])  # nothing is dropped
    with pytest.warns(UserWarning, match="dropout") as caught:
        type("Model", (getattr(fl, kind),), {})(I, H, dropout=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(fl, kind)(I, H, 2, dropout=0.5)
        getattr(fl, kind)(I, H, dropout=0.0)


@pytest.mark.parametrize(
    "model", [fl.LSTM(I, H), fl.GRU(I, H), fl.Sequential(fl.LSTM(I, H))], ids=lambda m: type(m)
)
def test_a_result_unpacked_as_torchs(model):
    with pytest.raises(TypeError, match=r"^tape: forward returns \(\(y, state\), tape\): call the"):
        _y, (_h, _c) = model.forward(np.ones((5, 2, I)))


X, STATE = np.ones((2, I), np.float32), np.ones((2, H), np.float32)


def masked(array, whole=False):
    array = np.ma.array(array, mask=not whole)
    return array if whole else array[...]


MASKED_CALLS = {
    "LSTMCell": {
        "x": lambda cell, m: cell(m(X)),
        "x ": lambda cell, m: cell.forward(m(X)),
        "x  ": lambda cell, m: cell([m(row) for row in X]),
        "state: h": lambda cell, m: cell(X, (m(STATE), STATE)),
        "state: c": lambda cell, m: cell(X, (STATE, m(STATE))),
        "state: c ": lambda cell, m: cell.forward(X, (STATE, list(map(m, STATE)))),
        "dstate: h": lambda cell, m: cell.backward(cell.forward(X)[1], (m(STATE), STATE)),
    },
    "GRUCell": {
        "x": lambda cell, m: cell(m(X)),
        "state: h": lambda cell, m: cell(X, m(STATE)),
        "dstate: h": lambda cell, m: cell.backward(cell.forward(X)[1], m(STATE)),
    },
    "LSTM": {
        "x": lambda lstm, m: lstm(m(X)),
        r"x\[1\]": lambda lstm, m: lstm([X, m(X)]),
        "lengths": lambda lstm, m: lstm(X[None], lengths=m(np.array([1, 1]))),
        "resets": lambda lstm, m: lstm(X[None], resets=m(np.zeros((1, 2), bool))),
        "state: h": lambda lstm, m: lstm(X[None], (m(STATE[None]), STATE[None])),
        "dy": lambda lstm, m: lstm.backward(lstm.forward(X)[1], m(STATE)),
        "dstate: c": lambda lstm, m: lstm.backward(
            lstm.forward(X[None])[1], None, (STATE[None], m(STATE[None]))
        ),
        "out": lambda lstm, m: lstm(X, out=m(STATE)),
    },
    "Linear": {
        "x": lambda line, m: line(m(X)),
        "x ": lambda line, m: line.forward([m(row) for row in X]),
        "dy": lambda line, m: line.backward(line.forward(X)[1], m(STATE)),
    },
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("dtype_of_x", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, calls in MASKED_CALLS.items() for name in calls]
)
def test_masked_arrays_are_refused(kernels, kind, name, dtype_of_x, whole):
    def mask(array):
        array = np.asarray(array)
        return masked(array.astype(dtype_of_x) if array.dtype.kind == "f" else array, whole)

    with pytest.raises(TypeError, match=rf"^{name.strip()}: .*(masked|MaskedArray)"):
        MASKED_CALLS[kind][name](getattr(fl, kind)(I, H), mask)


def test_masked_arrays_elsewhere(rng):
    pred, table, dropout = masked(X), fl.Embedding(4, I, rng=rng), fl.Dropout()
    weights = [np.ones(shape, np.float32) for shape in [(1, 4 * H, I), (1, 4 * H, H), (1, 8 * H)]]
    calls = {
        "pred": lambda: fl.losses.mse(pred, X),
        "target": lambda: fl.losses.mse(X, list(pred)),
        "mask": lambda: fl.losses.mse(X, X, masked(X > 0)),
        "logits": lambda: fl.losses.cross_entropy(pred, [0, 1]),
        "labels": lambda: fl.losses.cross_entropy(X, masked(np.array([0, 1]))),
        "x": lambda: table(masked(np.array([0, 1]))),
        "x ": lambda: dropout(pred),
        "dy": lambda: table.backward(table.forward([0, 1])[1], pred),
        "dy ": lambda: dropout.backward(dropout.forward(X)[1], pred),
        "W": lambda: fl.onnx.LSTM(masked(weights[0]), *weights[1:]),
        "X": lambda: fl.onnx.LSTM(*weights)(masked(X[None])),
        "initial_h": lambda: fl.onnx.LSTM(*weights)(X[None], None, masked(STATE[None])),
        "scale": lambda: fl.Module().define(scale=masked(X)),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=rf"^{name.strip()}: .*masked"):
            call()


@pytest.mark.parametrize("dtype_of_x", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, *GRU_AND_RNN.values()], ids=str)
def test_a_call_for_which_there_is_no_memory(kernels, rng, options, dtype_of_x):
    case = example(rng, **options)
    before = case()[0]
    x = np.broadcast_to(np.ones(I, dtype_of_x), (10**11, 3, I))
    for run in (case.layer, case.layer.forward):
        with pytest.raises(MemoryError, match=r"^x: .*\d{12}.*\(100000000000, 3, 3\)"):
            run(x)
    for sizes in ((2**40, 2**19), (2**60, 1)):
        x = np.broadcast_to(np.ones((), np.float32), (*sizes, 1))
        layer = type(case.layer)(1, 2**10)
        with pytest.raises(MemoryError, match=r"^x: .*\d{18}"):
            layer(x)
    assert_same_bits(case()[0], before)


def test_a_dense_call_for_which_there_is_no_memory():
    """Results of 2**42 bytes and more."""
    x, ids = np.ones((2**20, 1), np.float32), np.zeros(2**20, np.intp)
    line, words = fl.Linear(1, 2**20), fl.Embedding(2, 2**20)
    repeated = np.broadcast_to(np.int32(1), 2**48)
    for call, argument in (
        (line, x),
        (line.forward, x),
        (line.forward, x.astype(np.float64)),
        (words, ids),
        (words.forward, ids),
        (fl.Embedding(2, 1), repeated),
        (fl.Dropout().forward, np.broadcast_to(np.float32(1), 2**48)),
    ):
        with pytest.raises(MemoryError, match=r"^x: .*\d{13}.*shape \(\d+,"):
            call(argument)
    tall = fl.Linear(2**20, 1)
    _, tape = tall.forward(np.broadcast_to(np.float32(1), (1, 2**20)))
    tape.x = np.broadcast_to(tape.x, (2**20, 2**20))
    with pytest.raises(MemoryError, match=r"^dy: .*\d{13}.*shape \(1048576, 1048576\)"):
        tall.backward(tape, x)


LARGE = {
    "parameters": lambda: fl.LSTM(2**31 - 1, 2**31 - 1),
    "parameters ": lambda: fl.GRU(2**20, 2**21),
    "parameters  ": lambda: fl.LSTMCell(2**20, 2**21),
    "num_layers, hidden_size": lambda: fl.RNN(1, 2, num_layers=2**31 - 1),
    "in_features, out_features": lambda: fl.Linear(2**31 - 1, 2**31 - 1),
    "in_features, out_features ": lambda: fl.Linear(2**21, 2**21),
    "num_embeddings, embedding_dim": lambda: fl.Embedding(2**31 - 1, 2**31 - 1),
    "num_embeddings, embedding_dim ": lambda: fl.Embedding(2**21, 2**21),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_layer_for_which_there_is_no_memory(name):
    with pytest.raises(MemoryError, match=rf"^{name.strip()}: expected memory for \d+ numbers"):
        LARGE[name]()
