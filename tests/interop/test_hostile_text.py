"""Damaged and hostile text: only errors that name the file, in bounded time and memory."""

import copy
import json
import time
import tracemalloc

import numpy as np
import pytest
from audio_files import nam, proteus, rnnoise, rtneural

import fastlstm as fl
from fastlstm.interop.reading import MARGIN, MOST_TIMES, read_json, read_json_numbers
from fastlstm.interop.rnnoise import USUAL

VALUES = (
    None, True, False, "", "0.5", "nan", [], {}, [[]], [None], [True], {"a": 1}, 0, -1, 1.5, 2**31,
    10**12, 10**400, float("nan"), float("inf"), -float("inf"), 1e39, -1e300, [1.0], [[1.0, 2.0]],
)  # fmt: skip


def files(rng):
    state = fl.LSTM(2, 3, rng=0).state_dict()
    plan = ("dense", 3, "elu"), ("gru", 4, "tanh"), ("activation", None, "relu"), ("lstm", 2, "")
    return {
        "nam": nam(rng, 1, 3, 2, 1)[0],
        "rtneural": rtneural(rng, 2, *plan)[0],
        "aidax": rtneural(rng, 1, ("lstm", 3, ""), ("dense", 1, ""), in_skip=1, in_gain=2.5)[0],
        "proteus": proteus(rng, "GRU", 2, 3, 2, 2, 2)[0],
        "torch": {f"rec.{name}": array.tolist() for name, array in state.items()},
    }


def places(value):
    """Every object and list in a value that holds something."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from places(part)


def mutated(rng, file):
    """The text of the file with one thing in it changed."""
    file = copy.deepcopy(file)
    found = list(places(file))
    place = found[min(int(rng.exponential(4)), len(found) - 1)]
    keys = list(place) if isinstance(place, dict) else range(len(place))
    key = keys[rng.integers(len(keys))]
    kind = rng.integers(6)
    if kind <= 2:
        place[key] = VALUES[rng.integers(len(VALUES))]
    elif kind == 3:
        del place[key]
    elif kind == 4 and isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))
    text = json.dumps(file)
    if kind == 5:
        start = int(rng.integers(1, len(text)))
        replaced = text[: start - 1] + chr(rng.integers(32, 1000)) + text[start:]
        text = (text[:start], replaced, text[:start] + text[start - 9 :])[rng.integers(3)]
    return text.encode()


def check(path, text):
    """Load a file; it may be right, and if not the error names it."""
    path.write_bytes(text)
    start = time.perf_counter()
    try:
        arrays, message = fl.load(path).parameters(), str(path)
    except (ValueError, TypeError) as error:
        arrays, message = {}, str(error)
    assert message.startswith(str(path))
    assert len(message) < len(str(path)) + 500
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", files(np.random.default_rng(0)))
@pytest.mark.parametrize("seed", range(30))
def test_mutated_files(tmp_path, name, seed):
    rng = np.random.default_rng([seed, len(name)])
    check(tmp_path / "model", mutated(rng, files(rng)[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", files(np.random.default_rng(0)))
def test_many_mutated_files(tmp_path, name):
    for seed in range(5000):
        rng = np.random.default_rng([seed, 7])
        check(tmp_path / "model", mutated(rng, files(rng)[name]))


@pytest.mark.parametrize("seed", range(20))
def test_mutated_rnnoise(tmp_path, seed):
    rng = np.random.default_rng(seed)
    text = bytearray(rnnoise(rng, 3, (4, 2, 5, 3), 6, USUAL)[0].encode())
    for _ in range(rng.integers(1, 4)):
        text[rng.integers(len(text))] = rng.integers(256)
    check(tmp_path / "model", bytes(text[: rng.integers(8, len(text))] if seed % 3 else text))


def filler(start, middle, end, size=4_000_000):
    return start + middle * (size // len(middle)) + end


BOMBS = {
    "deep lists": b'{"layers": ' + b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "deep arrays": b'{"w.weight_ih_l0": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    "empty lists": filler(b'{"layers": [', b"[],", b"[]]}"),
    "empty objects": filler(b'{"layers": [', b"{},", b"{}]}"),
    "layers": filler(
        b'{"in_shape": [1], "layers": [',
        b'{"type":"dense","shape":[1],"weights":[[[1]],[1]]},',
        b'{"type":"dense","shape":[1],"weights":[[[1]],[1]]}]}',
    ),
    "names": b"{" + b",".join(b'"%d":[1]' % k for k in range(300_000)) + b"}",
    "the same name": filler(b"{", b'"":1,', b'"":1}'),
    "ragged": filler(b'{"w.weight_ih_l0": [[1],', b"[1],", b"[1,2]]}"),
    "numbers": filler(b'{"version": "0.5.4", "architecture": "LSTM", "weights": [', b"0,", b"0]}"),
    "large text": filler(b'{"version": "', b"9", b'", "architecture": "LSTM"}'),
    "wide text": b'{"architecture": "' + "🙂".encode() + b"a" * 4_000_000 + b'"}',
    "large value": filler(b'{"model_data": [', b"1,", b'1], "state_dict": 1}'),
    "digits": b'{"a": ' + b"9" * 4_000_000 + b"}",
    "exponent": b'{"w.weight_ih_l0": [1e999]}',
    "not text": b'{"a": "\xff\xfe"}',
    "blanks": b"rnnoise-nu model file version 1\n" + b" " * 4_000_000,
    "integers": b"rnnoise-nu model file version 1\n" + b"128 128 0\n" + b"1 " * 2_000_000,
    "much text": b"rnnoise-nu model file version 1\n" + b"1 " * 8_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path, name):
    path, text = tmp_path / "model", BOMBS[name]
    check(path, text)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="model: "):
            fl.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_TIMES * len(text) + MARGIN


def test_json_that_begins_like_another_file(tmp_path):
    """Its ninth character is that of a safetensors file."""
    path = tmp_path / "model"
    path.write_text('{"rec": {"architecture": "LSTM"}}')
    with pytest.raises(ValueError, match="'rec': expected arrays by name"):
        fl.load(path)


def test_names_stand_once():
    with pytest.raises(ValueError, match="'b': expected once in an object, got it twice"):
        read_json(b'{"c": 1, "b": 2, "a": {}, "b": 3}')


def test_numbers_are_numbers():
    np.testing.assert_array_equal(read_json_numbers("a", [[1, 2.5], [3, 4]]), [[1, 2.5], [3, 4]])
    assert read_json_numbers("a", [[], []]).shape == (2, 0)
    for wrong in (1.0, [True], ["1"], [None], [[1], 2], [1, [2]], [[1], [2, 3]], {"a": 1}, [{}]):
        with pytest.raises(ValueError, match="a: expected"):
            read_json_numbers("a", wrong)
    for wrong in (float("nan"), float("inf"), 1e39, 10**400, -(10**400)):
        with pytest.raises(ValueError, match="a: expected finite numbers of float32"):
            read_json_numbers("a", [0.0, wrong])
    with pytest.raises(ValueError, match=r"a: expected shape \(2, any\), got \(3, 1\)"):
        read_json_numbers("a", [[1], [2], [3]], 2, None)
