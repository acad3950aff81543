"""Files made to do harm: nothing is run, memory stays within bounds, errors name the file."""

import zipfile

import numpy as np
import pytest
from mutants import mutate, mutate_member, read_damaged, recurrent_arrays, refused
from pickles import (
    ORDERED,
    called,
    described,
    mapping,
    name,
    number,
    storage,
    tensor,
    text,
    values,
    whole,
    write_old,
    write_state,
    write_zip,
)

import fastlstm as fl
from fastlstm.interop.torch import layers
from fastlstm.safetensors import write_safetensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bin"


def with_state(rng, more):
    """A pickle of a state dict and more beside it, and its storages."""
    arrays = fl.GRU(3, 5, rng=rng).state_dict()
    parts = {n: described(array, str(key)) for key, (n, array) in enumerate(arrays.items())}
    return whole(mapping(parts | more)), [array.tobytes() for array in arrays.values()]


def evil_calls(sentinel):
    command = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w')"
    return {
        "posix.system": name("posix", "system") + values(text(command)) + b"R",
        "os.system": name("os", "system") + values(text(command)) + b"R",
        "builtins.eval": name("builtins", "eval") + values(text(code)) + b"R",
        "builtins.exec": name("builtins", "exec") + values(text(code)) + b"R",
        "__builtin__.eval": name("__builtin__", "eval") + values(text(code)) + b"R",
        "subprocess.Popen": b"(" + text(command) + b"isubprocess\nPopen\n",
        "subprocess.call": b"(" + name("subprocess", "call") + text(command) + b"o",
        "pty.spawn": name("pty", "spawn") + values(text(command)) + b"R",
        "os.popen": text("os") + text("popen") + b"\x93" + values(text(command)) + b"R",
        "runpy.run_path": name("runpy", "run_path") + values(text(str(sentinel))) + b"\x81",
        "builtins.getattr": name("builtins", "getattr")
        + values(name("os", "path"), text("os"))
        + b"R"
        + values(text(command))
        + b"R",
    }


@pytest.mark.parametrize("where", ["top", "beside", "state", "key", "type"])
@pytest.mark.parametrize("write", [write_zip, write_old], ids=["zip", "old"])
@pytest.mark.parametrize("call", evil_calls(""))
def test_a_pickle_that_would_run_code(rng, path, call, write, where):
    sentinel = path.parent / "sentinel"
    evil = evil_calls(sentinel)[call]
    if where == "top":
        pickled, storages = whole(evil), []
    elif where == "state":  # BUILD of a stub with what the call returns
        pickled, storages = whole(name("some", "Model") + b")\x81" + evil + b"b"), []
    elif where == "key":
        pickled, storages = whole(b"}(" + evil + text("x") + b"u"), []
    elif where == "type":
        function = name("torch._tensor", "_rebuild_from_type_v2")
        pickled, storages = whole(called(function, evil, evil, evil, evil)), []
    else:
        pickled, storages = with_state(rng, {"more": evil})
    sized = [(len(part) // 4, part) for part in storages] if write is write_old else storages
    write(path, pickled, sized)
    refused(path, f"the pickle would run {'what ' if 'getattr' in call else ''}{call}")
    with pytest.raises(ValueError, match="would run"):
        layers(path)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (whole(called(name("evil", "run"), text("x"))), "what evil.run would make"),
        (whole(name("evil", "run")), "expected the names"),
        (whole(called(ORDERED) + mapping({"__call__": text("x")}) + b"b"), "expected the names"),
        (whole(ORDERED + values(b"N", mapping({"__call__": text("x")})) + b"b"), "sets the state"),
        (whole(ORDERED + text("x") + text("y") + b"s"), "sets 2 items of a Global"),
        (whole(b"](" + name("builtins", "eval") + b"eK\x01b"), "sets the state of a list"),
        (whole(text("os.system") + values(text("x")) + b"R"), "calls a str"),
        (whole(ORDERED + b"N" + b"R"), "without a tuple"),
        (whole(b"}" + b"\x81"), "takes a value that is not there"),
        (whole(b"}" + values() + b"\x81"), "calls a dict"),
        (whole(text("os") + b"K\x01\x93"), "other than text"),
        (whole(b"\x82\x01"), "operation EXT1"),
        (whole(b"\x97"), "operation NEXT_BUFFER"),
        (whole(b"Pkey\n"), "operation PERSID"),
        (whole(text("key") + b"Q"), "persistent id"),
        (whole(values(text("storage"), text("x"), text("0"), b"N", number(3)) + b"Q"), "persist"),
        (whole(storage("FloatStorage", "0", -3)), "whole number"),
        (b"\x80\x02" + b"}" * 5, "no end"),
        (b"", "no end"),
        (b"\x80\x02", "no end"),
        (whole(b"t"), "mark that is not there"),
        (whole(b"((0"), "takes a value that is not there"),
        (whole(b"}h\x07"), "value 7, which is not there"),
        (whole(b"}(K\x01u"), "sets 1 items"),
        (whole(b"L" + b"9" * 5000 + b"L\n"), "digits"),
        (whole(b"\x8b" + b"\xff\xff\xff\x7f"), "not enough data"),
        (whole(b"\x8b" + b"\xff\xff\xff\xff"), "count < 0"),
        (whole(b"\x8d" + b"\xff" * 7 + b"\x7f"), "bytes"),
        (whole(b"\x8e" + b"\xff" * 7 + b"\x7f"), "bytes"),
        (whole(b"\x96" + b"\xff" * 7 + b"\x7f"), "bytes"),
        (whole(b"\x95" + b"\xff" * 8 + b"}"), "names"),
        (whole(b"}r\xff\xff\xff\x7f"), "names"),
        (whole(b"cos system\n"), "no end"),
        (b"\x80\x02" + b"]" * 50_000 + b".", "memory"),
        (b"\x80\x02}" + b"2" * 50_000 + b".", "memory"),
        (b"\x80\x02" + b"]q\x00" + b"h\x00" * 50_000 + b".", "memory"),
        (b"\x80\x02" + b"((" * 50_000 + b".", "memory"),
        (b"\x80\x02" + text("x" * 4000) + b"0" + b"]", "no end"),
        (b"\x80\x02" + b"(" * 1_000 + b"t" * 1_000 + b".", "too many parts"),
        (b"\x80\x02" + b"]" * 1_000 + b"a" * 999 + b".", "too many parts"),
        (whole(b"}" + text("k") + b"}s"), "expected the names"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_odd_pickles(monkeypatch, path, pickled, message):
    monkeypatch.setattr("fastlstm.interop.reading.MARGIN", 500_000)
    refused(write_zip(path, pickled, compression=zipfile.ZIP_DEFLATED), message)


def test_a_pickle_of_many_steps(monkeypatch, path):
    monkeypatch.setattr("fastlstm.interop.torch.unpickler.MOST_STEPS", 1_000)
    refused(write_zip(path, b"\x80\x02" + b"(1" * 500 + b"}."), "at most 1000 steps")


def doubled(count, make, end):
    """A value that has the one before twice, and so on: as a tree it has 2**count leaves."""
    first = make(b"", b"")
    return (
        b"\x80\x02"
        + first
        + b"q\x00"
        + b"".join(
            make(b"h" + bytes([k]), b"h" + bytes([k])) + b"q" + bytes([k + 1]) for k in range(count)
        )
        + end
    )


@pytest.mark.parametrize(
    "pickled",
    [
        doubled(60, lambda a, b: b"(" + a + b + b"t", b"."),
        doubled(60, lambda a, b: b"](" + a + b + b"e", b"."),
        doubled(
            60, lambda a, b: b"}(" + text("a") + (a or b"N") + text("b") + (b or b"N") + b"u", b"."
        ),
        doubled(60, lambda a, b: b"(" + a + b + b"t", b"}h\x3cK\x01s."),  # as a key
        doubled(60, lambda a, b: b"(" + a + b + b"t", name("torch", "Size") + b"h\x3c\x85R."),
        doubled(60, lambda a, b: b"(" + a + b + b"t", b"h\x3cQ."),
        doubled(
            60,
            lambda a, b: b"(" + a + b + b"t",
            name("collections", "OrderedDict") + b"](h\x3ch\x3c\x86e\x85R.",
        ),
        doubled(60, lambda a, b: b"(" + a + b + b"t", name("a", "b") + b")\x81h\x3cb."),
    ],
)
def test_values_that_double(monkeypatch, path, pickled):
    monkeypatch.setattr("fastlstm.interop.torch.tensors.MOST_NODES", 2_000)
    assert read_damaged(write_zip(path, pickled)) is not None


def test_names_that_grow(path):
    deep = b"".join(text("x" * 20) + b"}" for _ in range(30))
    pickled = b"\x80\x02}" + deep + text("w") + described(np.ones(2, "f4"), "0") + b"s" * 31 + b"."
    refused(write_zip(path, pickled, [np.ones(2, "f4").tobytes()]), "at most 500 characters")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: tensor(s, 0, (15, 3), (4, 1)), "lead beyond 45 numbers"),
        (lambda s: tensor(s, 1, (15, 3), (3, 1)), "lead beyond"),
        (lambda s: tensor(s, 0, (15, 3), (2**62, 1)), "lead beyond"),
        (lambda s: tensor(s, 2**62, (15, 3), (3, 1)), "lead beyond"),
        (lambda s: tensor(s, 0, (15, 3), (-3, 1)), "strides: expected whole numbers from 0"),
        (lambda s: tensor(s, -1, (15, 3), (3, 1)), "offset: expected whole numbers from 0"),
        (lambda s: tensor(s, 0, (-15, -3), (3, 1)), "shape: expected whole numbers from 0"),
        (lambda s: tensor(s, 0, (15, 3), (3,)), "a stride for each of 2 axes"),
        (lambda s: tensor(s, 0, (1,) * 40, (1,) * 40), "a stride for each of 40 axes"),
        (lambda s: tensor(s, 0, (2**40, 3), (0, 0)), "no more memory than"),
        (lambda s: tensor(s, 0, (2**31, 2**31), (0, 0)), "no more memory than"),
        (lambda s: tensor(s, 0, (2**61, 2**61), (0, 0)), "no more memory than"),
        (
            lambda s: tensor(s, 0, (2_500_000, 3), (0, 1)),
            "expected shape (15, 3), got (2500000, 3)",
        ),
        (lambda s: tensor(s, 0, (0, 3), (3, 1)), "expected a matrix"),
        (lambda s: tensor(s, 0, (), ()), "expected a matrix"),
        (lambda s: tensor(storage("FloatStorage", "9", 45), 0, (15, 3), (3, 1)), "member"),
        (lambda s: tensor(storage("FloatStorage", "../0", 45), 0, (15, 3), (3, 1)), "member"),
        (
            lambda s: tensor(storage("FloatStorage", "0", 44), 0, (4, 3), (3, 1)),
            "expected 176 bytes",
        ),
        (lambda s: tensor(storage("FloatStorage", "0", 2**60), 0, (15, 3), (3, 1)), "memory"),
        (lambda s: tensor(storage("QInt8Storage", "0", 45), 0, (15, 3), (3, 1)), "QInt8Storage"),
        (lambda s: tensor(storage("eval", "0", 45), 0, (15, 3), (3, 1)), "got 'eval'"),
        (lambda s: tensor(text("0"), 0, (15, 3), (3, 1)), "without a storage"),
        (lambda s: called(name("torch._utils", "_rebuild_tensor_v2"), s), "missing 3"),
        (lambda s: called(name("torch._utils", "_rebuild_tensor_v2"), *[s] * 6), "whole numbers"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_odd_tensors(rng, path, change, message):
    good = storage("FloatStorage", "0", 45)
    pickled, storages = with_state(rng, {"weight_ih_l0": change(good)})
    refused(write_zip(path, pickled, storages), message)


def test_storages_that_disagree(rng, path):
    other = tensor(storage("DoubleStorage", "0", 45), 0, (15, 3), (3, 1))
    refused(write_zip(path, *with_state(rng, {"x": other})), "two sizes or dtypes")
    arrays = fl.GRU(3, 5, rng=rng).state_dict()
    parts = mapping({n: described(a, str(k)) for k, (n, a) in enumerate(arrays.items())})
    sized = [(array.size, array.tobytes()) for array in arrays.values()]
    write_old(path, whole(parts), [(sized[0][0] + 1, sized[0][1]), *sized[1:]])
    refused(path, "storage '0': expected 45 numbers, got 46")
    write_old(path, whole(parts), [*sized[:-1], (15, sized[-1][1][:-4])])
    refused(path, "expected 60 bytes, got 56")
    write_old(path, whole(parts), sized, keys=["0", "0", "2", "3"])
    refused(path, "storage '0': expected to be named once")
    write_old(path, whole(parts), sized, keys=["0", "1", "2"])
    refused(path, "storage '3': expected its numbers, got none")
    view = values(text("v"), number(40), number(10))
    stored = described(np.ones((15, 3), "f4"), "0", view)
    refused(write_old(path, whole(mapping({"weight_ih_l0": stored}))), "a view beyond its end")


def test_odd_archives(monkeypatch, rng, path):
    pickled, storages = with_state(rng, {})
    refused(write_zip(path, pickled, storages, **{"b/data.pkl": pickled}), "one member data.pkl")
    refused(write_zip(path, pickled, storages, byteorder=b"middle"), "byteorder")
    with pytest.warns(UserWarning, match="Duplicate"):
        write_zip(path, pickled, storages, **{"data/0": storages[0]})
    refused(path, "each with its own name")
    monkeypatch.setattr("fastlstm.interop.reading.MARGIN", 500_000)
    bomb = b"\x80\x02" + text("x" * 3_000_000) + b"."
    write_zip(path, bomb, compression=zipfile.ZIP_DEFLATED)
    refused(path, "expands beyond 3 times")


def originals(path, rng):
    """A good file of each kind, as bytes."""
    arrays = recurrent_arrays(rng)
    np.savez(path.with_suffix(".npz"), **arrays)
    write_state(path, arrays)
    yield path.with_suffix(".npz").read_bytes()
    yield path.read_bytes()
    write_state(path, arrays, write_old)
    yield path.read_bytes()
    write_safetensors(path, arrays)
    yield path.read_bytes()
    fl.save(path, fl.Sequential(fl.GRU(3, 5, rng=rng), fl.Linear(5, 2, rng=rng)))
    yield path.read_bytes()


def check_mutants(path, rng, count):
    """Every mutant of every kind of file is read, or refused with an error that names it."""
    good = list(originals(path, rng))
    errors = []
    for n in range(count):
        data = good[n % len(good)]
        change = mutate_member if data[:2] == b"PK" and rng.integers(4) else mutate
        path.write_bytes(change(rng, data))
        errors.append(read_damaged(path))
    refused = sum(error is not None for error in errors)
    assert count / 3 < refused < count


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutants(path):
    check_mutants(path, np.random.default_rng(0), 200)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_many_mutants(path):
    check_mutants(path, np.random.default_rng(1), 20_000)
