"""ONNX files whose large tensors are read where they stand."""

import numpy as np
import pytest
from onnx_graphs import onnx

import fastlstm as fl
from fastlstm.interop.onnx.constants import constant
from fastlstm.interop.onnx.graph import File
from fastlstm.interop.onnx.wire import LARGE, parse

KINDS = ("float32", "float16", "float64", "int8", "int64", "bool", "uint16")


def tensors(rng):
    """Arrays above and below the bound, of every dtype, and of no and several axes."""
    arrays = {"scalar": np.float32(3)}
    for kind in KINDS:
        numbers = 100 * rng.standard_normal((LARGE, 3))
        arrays |= {kind: numbers.astype(kind), f"few {kind}": numbers[:2].astype(kind)}
    return arrays


@pytest.fixture
def model(rng):
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in tensors(rng).items()]
    typed = onnx.helper.make_tensor("typed", onnx.TensorProto.FLOAT, [LARGE], np.arange(LARGE))
    brain = onnx.TensorProto(name="brain", data_type=onnx.TensorProto.BFLOAT16, dims=[LARGE])
    brain.raw_data = (np.arange(LARGE, dtype=np.float32) / 64).view(np.uint16)[1::2].tobytes()
    graph = onnx.helper.make_graph([], "main", [], [], [*initializers, typed, brain])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_every_tensor_is_read_as_onnx_reads_it(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    apart, whole = File(path), File(model)
    assert len(apart.main.numbers) == len(KINDS) + 1
    assert apart.model.ByteSize() < 8 * LARGE < apart.size
    assert not whole.main.numbers
    for tensor in model.graph.initializer:
        array, other = (constant(file.main, tensor.name) for file in (apart, whole))
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(array, other)


def test_what_is_left_is_the_rest_of_the_model(model):
    rest, numbers = parse("model", model.SerializeToString())
    for place, part in numbers.items():
        assert not rest.graph.initializer[place].HasField("raw_data")
        rest.graph.initializer[place].raw_data = bytes(part)
    assert rest == model


def test_a_graph_in_two_fields_is_merged(tmp_path):
    """As protobuf demands; no bytes are left where they stand."""
    layer = fl.LSTM(20, 30, rng=0)
    fl.interop.onnx.export(layer, tmp_path / "whole")
    whole = onnx.load(tmp_path / "whole")
    graph = onnx.GraphProto(initializer=whole.graph.initializer)
    first = onnx.ModelProto(ir_version=whole.ir_version, graph=graph)
    del whole.graph.initializer[:]
    data = first.SerializeToString() + whole.SerializeToString()
    (tmp_path / "two.onnx").write_bytes(data)
    assert not parse("two", data)[1]
    found = fl.load(tmp_path / "two.onnx").state_dict()
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("change", [-8, 8])
def test_too_few_and_too_many_bytes_are_refused(change, tmp_path):
    fl.interop.onnx.export(fl.LSTM(20, 30, rng=0), tmp_path / "m")
    model = onnx.load(tmp_path / "m")
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    assert len(tensor.raw_data) > 2 * LARGE
    tensor.raw_data = (tensor.raw_data + bytes(8))[: len(tensor.raw_data) + change]
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    for read in (fl.load, fl.interop.onnx.layers):
        with pytest.raises(ValueError, match=r"bad.onnx: .*expected the \d+ numbers of its shape"):
            read(tmp_path / "bad.onnx")


def test_weights_before_a_cast(tmp_path):
    """Those of float16 are taken as they are, beside a bias of float32; others are cast."""
    for kind in ("float16", "float64"):
        layer = fl.LSTM(20, 30, rng=0)
        fl.interop.onnx.export(layer, tmp_path / "m")
        model = onnx.load(tmp_path / "m")
        W = next(one for one in model.graph.initializer if list(one.dims) == [1, 120, 20])
        narrow = onnx.numpy_helper.to_array(W).astype(kind)
        name = W.name
        W.CopyFrom(onnx.numpy_helper.from_array(narrow, "before"))
        cast = onnx.helper.make_node("Cast", ["before"], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)
        onnx.save(model, tmp_path / f"{kind}.onnx")
        found = fl.load(tmp_path / f"{kind}.onnx")
        assert found.dtype == np.float32
        for key, array in layer.state_dict().items():
            wanted = array.astype(kind) if "weight_ih" in key else array
            np.testing.assert_array_equal(found.state_dict()[key], wanted.astype(np.float32))
