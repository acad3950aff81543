"""Damaged and hostile ONNX files: a ValueError that names the path, and nothing else."""

import random
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import graph_of, model_of, node, onnx

import fastlstm as fl

READERS = (fl.load, fl.interop.onnx.layers)


def exported(folder, model, **options):
    fl.interop.onnx.export(model, folder / "m.onnx", **options)
    return (folder / "m.onnx").read_bytes()


def with_folding():
    """An LSTM in a branch, whose weights the graph computes."""
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal((8, 2)).astype(np.float32) for name in "wr"}
    ends = {f"n{k}": np.array([k]) for k in (0, 2, 6, 8)}
    nodes = []
    for name in "wr":
        for k, (begin, end) in enumerate(((0, 2), (6, 8), (2, 6))):
            inputs = [name, f"n{begin}", f"n{end}", "n0"]
            nodes.append(node("Slice", inputs, [f"{name}{k}"]))
        nodes.append(node("Concat", [f"{name}{k}" for k in range(3)], [f"{name}joined"], axis=0))
        nodes.append(node("Unsqueeze", [f"{name}joined", "n0"], [name.upper()]))
    nodes.append(node("Gather", ["table", "n2"], ["row"]))
    nodes.append(node("Expand", ["row", "state shape"], ["h"]))
    nodes.append(node("LSTM", ["x", "W", "R", "", "", "h"], ["Y"], hidden_size=2, name="cell"))
    then = graph_of(nodes, {}, ["Y"], name="then")
    otherwise = graph_of([node("Identity", ["y"], ["Z"])], {}, ["Z"], name="else")
    constants |= ends | {"state shape": np.array([1, 3, 2])}
    constants |= {"table": rng.standard_normal((4, 2)).astype(np.float32)}
    model = model_of(
        [node("If", ["yes"], ["out"], then_branch=then, else_branch=otherwise)],
        {"x": (5, 3, 2), "y": (5, 1, 3, 2), "yes": ((), np.bool_)},
        ["out"],
        constants,
    )
    return model.SerializeToString()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    words = fl.Sequential(
        fl.Embedding(7, 3, rng=0),
        fl.GRU(3, 2, 2, bidirectional=True, batch_first=True, rng=0),
        fl.Last(),
        fl.Linear(4, 2, rng=0),
        fl.Activation("softmax"),
    )
    lstm = fl.LSTM(3, 2, peepholes=True, clip=0.5, learn_initial_state=True, rng=0)
    return [exported(folder, words), exported(folder, lstm, state=True), with_folding()]


def damaged(data, chance):
    """The bytes with a few changes of the kinds that find faults."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data))
        kind = chance.randrange(5)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[place : place + chance.randint(1, 40)]
        elif kind == 3:
            data[place:place] = bytes(data[place : place + chance.randint(1, 40)])
        else:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 9)))
        if not data:
            break
    return bytes(data)


def messages(node):
    """All messages within one, by walking its fields."""
    yield node
    for field, value in node.ListFields():
        if field.message_type is not None:
            parts = value if field.is_repeated else (value,)
            for part in parts:
                yield from messages(part)


def altered(data, chance):
    """The model with one number, text or list somewhere in it replaced."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(chance.randint(1, 3)):
        message = chance.choice(list(messages(model)))
        fields = [pair for pair in message.ListFields() if pair[0].message_type is None]
        if not fields:
            continue
        field, value = chance.choice(fields)
        old = list(value) if field.is_repeated else [value]
        if not old:
            continue
        if isinstance(old[0], bytes):
            new = old[0][: chance.randrange(len(old[0]) + 1)]
        elif isinstance(old[0], str):
            new = chance.choice(("", "x", "W", "Y", "h", "LSTM", "Gather", "Tile", "n0", "y"))
        elif isinstance(old[0], float):
            new = chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
        elif field.enum_type is not None:
            new = chance.choice((0, 1, 2, 7, 10, 11))
        else:
            new = chance.choice((0, 1, -1, 2, 3, 10, 16, 2**31 - 1))
        if field.is_repeated:
            place = chance.randrange(len(old))
            values = [*old[:place], *[new] * chance.randrange(3), *old[place + 1 :]]
            del value[:]
            value.extend(values)
        else:
            setattr(message, field.name, new)
    return model.SerializeToString()


def check(path, data):
    path.write_bytes(data)
    for read in READERS:
        text = str(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read(path)
        except ValueError as error:
            text = str(error)
        assert str(path) in text


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 2), st.sampled_from([damaged, altered]))
def test_damaged_files(files, tmp_path_factory, seed, which, change):
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    check(path, change(files[which], random.Random(seed)))


def test_whole_files_load(files, tmp_path):
    """So that the damaged ones begin as right ones."""
    path = tmp_path / "m.onnx"
    for k, data in enumerate(files):
        path.write_bytes(data)
        assert len(fl.interop.onnx.layers(path)) == (2, 1, 1)[k]
        if k < 2:
            fl.load(path)


def refuse(path, data, text):
    path.write_bytes(data)
    tracemalloc.start()
    try:
        for read in READERS:
            with pytest.raises(ValueError, match=text) as caught:
                read(path)
            assert str(caught.value).startswith(str(path))
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + (64 << 20)
    finally:
        tracemalloc.stop()


def rnn_of(nodes, constants=()):
    weights = {name: np.ones((1, 2, 2), np.float32) for name in "WR"}
    weights |= {name: np.asarray(array) for name, array in dict(constants).items()}
    for part in nodes:
        weights.pop(part.output[0], None)
    nodes = [*nodes, node("RNN", ["x", "W", "R"], ["Y"], hidden_size=2, name="cell")]
    return model_of(nodes, {"x": (5, 3, 2)}, ["Y"], weights).SerializeToString()


def test_circles_and_two_definitions(tmp_path):
    nodes = [node("Identity", ["b"], ["W"]), node("Identity", ["W"], ["b"])]
    refuse(tmp_path / "m", rnn_of(nodes), "'b': expected it to be computed before its use")
    nodes = [node("Identity", ["R"], ["W"]), node("Identity", ["R"], ["W"])]
    refuse(tmp_path / "m", rnn_of(nodes), "'W': expected one definition, got two")


def test_results_that_double(tmp_path):
    nodes = [node("Concat", ["R", "R"], ["c0"], axis=0)]
    nodes += [node("Concat", [f"c{k}", f"c{k}"], [f"c{k + 1}"], axis=0) for k in range(60)]
    nodes.append(node("Identity", ["c60"], ["W"]))
    refuse(tmp_path / "m", rnn_of(nodes), "expected constants within")


def test_many_layers_of_the_same_weights(tmp_path):
    weights = {"W": np.ones((1, 1500, 1500), np.float32), "R": np.ones((1, 1500, 1500), np.float32)}
    nodes = [node("RNN", ["x", "W", "R"], [f"y{k}"], hidden_size=1500) for k in range(8)]
    model = model_of(nodes, {"x": (5, 3, 1500)}, ["y0"], weights)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"m\.onnx: RNN .*: expected at most 2000 layers and"):
        fl.interop.onnx.layers(path)


def field(number, data):
    """A field of protobuf that holds bytes."""
    size, length = bytearray(), len(data)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + data


@pytest.mark.parametrize(
    "graph",
    [b"\x0a\x00" * 200_000, field(1, b"\x2a\x00" * 200_000)],
    ids=["nodes", "attributes"],
)
def test_floods_of_empty_parts(tmp_path, graph):
    """They are refused before they are parsed, which takes a hundred times their bytes."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11"))
    for read in READERS:
        with pytest.raises(ValueError, match=r"m\.onnx: .*expected fewer parts in a file of this"):
            read(path)


def test_a_tensor_without_its_numbers(tmp_path):
    model = onnx.ModelProto.FromString(rnn_of([]))
    model.graph.initializer[0].dims[:] = [1, 2, 2**40]
    refuse(tmp_path / "m", model.SerializeToString(), "expected the .* numbers of its shape")


def test_a_long_chain(tmp_path):
    nodes = [node("Identity", ["R"], ["c0"])]
    nodes += [node("Identity", [f"c{k}"], [f"c{k + 1}"]) for k in range(3000)]
    nodes.append(node("Identity", ["c3000"], ["W"]))
    refuse(tmp_path / "m", rnn_of(nodes), "recursion|deep")


def test_other_files(tmp_path):
    path = tmp_path / "m.onnx"
    for data in (b"", b"\x08", b"\x08\x08" * 100, b"PK\x03\x04" + bytes(100)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.onnx: "):
            fl.interop.onnx.layers(path)
