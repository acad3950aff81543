"""Models as files: what comes back, and which files are refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from compare import assert_same_bits
from models import Branches, Residual

import fastlstm as fl
from fastlstm.files import LAYERS
from fastlstm.safetensors import read_safetensors, write_safetensors

SLOPED = ("hard_sigmoid", ("scaled_tanh", 1.5, 0.7), ("affine", 0.5, 0.25))


def models(rng):
    return {
        "LSTM": fl.LSTM(3, 5, rng=rng),
        "LSTM, stacked": fl.LSTM(3, 5, 2, False, True, 0.3, True, 2, dtype=np.float64, rng=rng),
        "LSTM, options": fl.LSTM(
            3, [5, 4], bidirectional=True, peepholes=True, layer_norm=True, activations=SLOPED,
            clip=2.5, recurrent_dropout=0.2, zoneout=(0.1, 0.3), init="chrono", t_max=40,
            learn_initial_state=True, dtype="float64", rng=rng,
        ),
        "LSTM, coupled": fl.LSTM(3, np.int64(5), coupled=True, init="keras", rng=rng),
        "LSTM, forget bias": fl.LSTM(3, 5, forget_bias=0.5, rng=rng),
        "GRU": fl.GRU(
            3, 5, 2, linear_before_reset=False, activations=("softsign", "elu"), clip=1, rng=rng
        ),
        "RNN": fl.RNN(3, [4, 5], nonlinearity=("leaky_relu", 0.3), init="keras", rng=rng),
        "Linear": fl.Linear(3, 5, rng=rng),
        "Linear, no bias": fl.Linear(3, 5, bias=False, dtype=np.float64, rng=rng),
        "Activation": fl.Activation("leaky_relu", 0.2),
        "Dropout": fl.Dropout(0.2, rng=rng),
        "Pool": fl.Pool("mean"),
        "Pool, options": fl.Pool("max", batch_first=True, bidirectional=False),
        "Last": fl.Last(bidirectional=False),
        "classifier": fl.Sequential(
            fl.LSTM(3, 5, bidirectional=True, batch_first=True, rng=rng), fl.Last(),
            fl.Linear(10, 2, rng=rng),
        ),
        "Sequential": fl.Sequential(
            fl.Linear(3, 4, rng=rng),
            fl.Sequential(fl.LSTM(4, 5, rng=rng), fl.Dropout(0.1), fl.Sequential()),
            fl.GRU(5, 3, dtype=np.float64, rng=rng),
        ),
    }  # fmt: skip


def cells(rng):
    return {
        "LSTMCell": fl.LSTMCell(3, 5, peepholes=True, zoneout=(0.1, 0.2), rng=rng),
        "GRUCell": fl.GRUCell(3, 5, bias=False, dtype=np.float64, rng=rng),
        "RNNCell": fl.RNNCell(3, 5, nonlinearity="relu", rng=rng),
    }


def results(result):
    return [part for each in result for part in results(each)] if isinstance(
        result, (tuple, list)
    ) else [result]  # fmt: skip


def assert_same_model(again, model, x):
    assert repr(again) == repr(model)
    assert type(again) is type(model)
    for name, array in model.parameters().items():
        assert again.parameters()[name].dtype == array.dtype
        assert_same_bits(again.parameters()[name], array)
    for actual, expected in zip(results(again(x)), results(model(x)), strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("name", [*models(0), *cells(0)])
def test_a_layer_comes_back(rng, tmp_path, name):
    model = (models(rng) | cells(rng))[name]
    fl.save(tmp_path / "model", model)
    again = fl.load(tmp_path / "model")
    assert_same_model(again, model, rng.standard_normal((4, 3) if name in cells(0) else (7, 4, 3)))
    fl.save(tmp_path / "again", again)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()


def test_an_embedding_comes_back(rng, tmp_path):
    weight = rng.standard_normal((9, 3))
    words = fl.Embedding(9, 3, padding_idx=-2, weight=weight, dtype=np.float64)
    model = fl.Sequential(words, fl.LSTM(3, 5, rng=rng))
    fl.save(str(tmp_path / "model"), model)
    assert_same_model(fl.load(str(tmp_path / "model")), model, rng.integers(0, 9, (7, 4)))


def test_every_layer_is_saved():
    made = {type(module).__name__ for module in (models(0) | cells(0)).values()}
    others = {"Embedding", "Backwards", "Masking", "Merge"}  # in tests of their own
    assert made | others == set(LAYERS)
    public = {n for n in fl.__all__ if isinstance(getattr(fl, n), type)}
    public = {n for n in public if issubclass(getattr(fl, n), fl.Module)}
    assert public - {"Module"} == set(LAYERS)


def test_a_loaded_model_trains(rng, tmp_path):
    fl.save(tmp_path / "model", fl.Sequential(fl.LSTM(3, 5), fl.Dropout(0.5), fl.Linear(5, 1)))
    model = fl.load(tmp_path / "model")
    (y, _), tape = model.forward(rng.standard_normal((7, 4, 3)))
    assert (model.forward(rng.standard_normal((7, 4, 3)))[0][0] != y).any()
    fl.optim.Adam().step(model, model.backward(tape, y))


@pytest.mark.parametrize("kind", [Residual, Branches])
def test_modules_of_ones_own(rng, tmp_path, kind):
    model = fl.Sequential(kind(3, rng=rng))
    fl.save(tmp_path / "model", model)
    again = fl.load(tmp_path / "model", modules={kind.__name__: kind})
    assert_same_model(again, model, rng.standard_normal((7, 4, 3)))
    with pytest.raises(TypeError, match=r"^modules: expected a mapping.*, got \["):
        fl.load(tmp_path / "model", modules=[kind])
    with pytest.raises(ValueError, match=rf"model: .*modules=\{{'{kind.__name__}'"):
        fl.load(tmp_path / "model")


class Wrapped(fl.Module):
    def __init__(self, inner, several=()):
        self.inner, self.several = inner, several

    def __call__(self, x):
        return self.inner(x)


class Forgetful(fl.Module):
    def __init__(self, size=3):
        self.line = fl.Linear(size, size)


def test_a_module_whose_argument_is_a_module(rng, tmp_path):
    model = Wrapped(fl.Linear(3, 2, rng=rng), [1, "a", None, 2.5, True, np.float32(0.5)])
    fl.save(tmp_path / "model", model)
    again = fl.load(tmp_path / "model", modules={"Wrapped": Wrapped})
    assert_same_bits(again.inner.weight, model.inner.weight)
    assert again.several == model.several


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Forgetful(4), ValueError, "Forgetful does not keep its argument size"),
        (Wrapped(np.ones(3)), ValueError, "Wrapped has an argument inner of type ndarray"),
        (Wrapped(float("nan")), ValueError, "JSON"),
        (type("LSTM", (fl.LSTM,), {})(3, 5), ValueError, "another name .* than LSTM"),
        ({"a": 1}, TypeError, "model: expected a Module, got dict"),
        (None, TypeError, "model: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, fl.Module) else None,
)
def test_what_is_not_saved(tmp_path, model, error, message):
    with pytest.raises(error, match=message):
        fl.save(tmp_path / "model", model)
    assert os.listdir(tmp_path) == []


def test_loading_runs_no_code(tmp_path):
    """A new process reads a model of this one, and imports nothing for it."""
    fl.save(tmp_path / "model", fl.Sequential(fl.LSTM(3, 5), fl.Linear(5, 2)))
    code = (
        "import sys, fastlstm as fl; before = set(sys.modules); "
        f"fl.load({str(tmp_path / 'model')!r}); assert 'pickle' not in set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


LINEAR = {"class": "Linear", "arguments": {"in_features": 3, "out_features": 2}}
LSTM = {"class": "LSTM", "arguments": {"input_size": 3, "hidden_size": 2}}
HUGE = 2**31 - 1


def changed(description, **arguments):
    return {**description, "arguments": {**description["arguments"], **arguments}}


@pytest.mark.parametrize(
    "description",
    [
        1,
        None,
        [],
        [LINEAR],
        {},
        {"class": "Linear"},
        {"class": "Linear", "arguments": []},
        {**LINEAR, "more": 1},
        {**LINEAR, "class": "Quadratic"},
        {**LINEAR, "class": "__import__"},
        {**LINEAR, "class": ["Linear"]},
        {**LINEAR, "class": "Module"},
        {"class": "Linear", "arguments": {"in_features": 3}},
        changed(LINEAR, rng=1),
        changed(LINEAR, self=1),
        changed(LINEAR, color="red"),
        changed(LINEAR, bias="yes"),
        changed(LINEAR, bias=False),
        changed(LINEAR, dtype="float64"),
        changed(LINEAR, dtype="object"),
        changed(LINEAR, in_features=2.5),
        changed(LINEAR, in_features=True),
        changed(LINEAR, in_features=-1),
        changed(LINEAR, in_features=2),
        changed(LINEAR, in_features=HUGE),
        changed(LINEAR, in_features=HUGE, out_features=HUGE),
        changed(LINEAR, in_features=10**5000 if sys.version_info < (3, 10, 7) else 10**4000),
        changed(LINEAR, in_features=LINEAR),
        changed(LSTM, hidden_size=HUGE),
        changed(LSTM, hidden_size=[2] * 50),
        changed(LSTM, hidden_size=[]),
        changed(LSTM, hidden_size={}),
        changed(LSTM, input_size=HUGE),
        changed(LSTM, num_layers=HUGE),
        changed(LSTM, num_layers=HUGE, proj_size=1),
        changed(LSTM, activations=[["tanh"]]),
        changed(LSTM, activations="tanh"),
        changed(LSTM, zoneout=3),
        {"class": "Embedding", "arguments": {"num_embeddings": HUGE, "embedding_dim": 8}},
        {"class": "Sequential", "arguments": {"modules": [LINEAR, LINEAR]}},
        {"class": "Sequential", "arguments": {"modules": [1]}},
        {"class": "Sequential", "arguments": {"modules": 1}},
        {"class": "Sequential", "arguments": {"modules": {"0": LINEAR}}},
    ],
    ids=lambda description: json.dumps(description)[:60],
)
def test_bad_architectures_are_refused(tmp_path, description):
    path = tmp_path / "bad"
    write_safetensors(
        path,
        {"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)},
        {"fastlstm": json.dumps(description)},
    )
    with pytest.raises(ValueError, match=r"bad: \S"):
        fl.load(path)


@pytest.mark.parametrize(
    "description",
    [
        changed(LINEAR, in_features=3000),
        changed(LSTM, hidden_size=3000),
        changed(LSTM, hidden_size=[2, 3000]),
        changed(LSTM, num_layers=3000),
        {"class": "Embedding", "arguments": {"num_embeddings": 3000, "embedding_dim": 1}},
        {"class": "Sequential", "arguments": {"modules": [LINEAR] * 2}},
    ],
    ids=lambda description: json.dumps(description)[:60],
)
def test_a_layer_larger_than_the_file_is_not_made(tmp_path, description):
    path = tmp_path / "bad"
    write_safetensors(path, {"weight": np.ones((2, 3))}, {"fastlstm": json.dumps(description)})
    with pytest.raises(ValueError, match="expected the sizes of the arrays in the file"):
        fl.load(path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "NaN", '{"class":' * 100_000, "9" * 9999])
def test_bad_json_is_refused(tmp_path, text):
    write_safetensors(tmp_path / "bad", {}, {"fastlstm": text})
    with pytest.raises(ValueError, match=r"bad: \S"):
        fl.load(tmp_path / "bad")


def test_a_very_deep_model_is_refused(tmp_path):
    text = '{"class":"Sequential","arguments":{"modules":[' * 300 + "]}}" * 300
    write_safetensors(tmp_path / "bad", {}, {"fastlstm": text})
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(500)
        with pytest.raises(ValueError, match=r"bad: \S"):
            fl.load(tmp_path / "bad")
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("bias"), r"missing names \['bias'\]"),
        (lambda a: a.update(extra=np.ones(2, np.float32)), r"unknown names \['extra'\]"),
        (lambda a: a.update(bias=np.ones(3, np.float32)), "bias.*shape"),
        (lambda a: a.update(weight=a["weight"].T), "weight.*shape"),
        (lambda a: a.update(bias=np.ones(2, int)), "bias: expected dtype float32, got int64"),
        (lambda a: a.update(bias=np.ones(2)), "bias: expected dtype float32, got float64"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, change, message):
    path = tmp_path / "bad"
    fl.save(path, fl.Linear(3, 2))
    arrays, metadata = read_safetensors(path)
    change(arrays)
    write_safetensors(path, arrays, metadata)
    with pytest.raises(ValueError, match=f"bad: .*{message}"):
        fl.load(path)


def test_halves_are_read_as_float32(tmp_path):
    model = fl.Linear(3, 2)
    fl.save(tmp_path / "model", model)
    arrays, metadata = read_safetensors(tmp_path / "model")
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    write_safetensors(tmp_path / "model", halves, metadata)
    np.testing.assert_allclose(fl.load(tmp_path / "model").weight, model.weight, rtol=1e-3)


def test_a_damaged_file(tmp_path):
    fl.save(tmp_path / "model", fl.Linear(3, 2))
    (tmp_path / "model").write_bytes((tmp_path / "model").read_bytes()[:-1])
    with pytest.raises(ValueError, match="model: not a valid safetensors file"):
        fl.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        fl.load(tmp_path / "nothing")
