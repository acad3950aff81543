"""Files take memory for at most three times their size while they are read."""

import os
import tracemalloc

import numpy as np
import pytest

import fastlstm as fl

SMALL = 1 << 20  # bytes for all that is no array


def arrays():
    return fl.LSTM(250, 300, 2, bidirectional=True, rng=0).state_dict()


def write_own(path):
    fl.save(path, fl.Sequential(fl.LSTM(250, 450, 2, rng=0), fl.Dropout(), fl.Linear(450, 9)))


def write_npz(path):
    with open(path, "wb") as file:
        np.savez(file, **arrays())


def write_torch(dtype, is_new):
    def write(path):
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays().items()}
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=is_new)

    return write


def write_safetensors(dtype):
    def write(path):
        torch = pytest.importorskip("torch")
        save = pytest.importorskip("safetensors.torch").save_file
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays().items()}
        save({name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}, path)

    return write


def write_onnx(model):
    def write(path):
        pytest.importorskip("onnx")
        fl.interop.onnx.export(model(), path)

    return write


def write_half_onnx(is_cast):
    """Weights of float16; those of a model of float32 with a Cast after each."""

    def write(path):
        onnx = pytest.importorskip("onnx")
        fl.interop.onnx.export(fl.LSTM(250, 450, 2, bidirectional=True, rng=0), path)
        model = onnx.load(path)
        values, graph = onnx.TensorProto, model.graph
        casts = []
        for part in () if is_cast else (*graph.input, *graph.output):
            part.type.tensor_type.elem_type = values.FLOAT16
        for tensor in graph.initializer:
            if tensor.data_type == values.FLOAT:
                half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
                name = tensor.name + is_cast * " half"
                if is_cast:
                    cast = onnx.helper.make_node("Cast", [name], [tensor.name], to=values.FLOAT)
                    casts.append(cast)
                tensor.CopyFrom(onnx.numpy_helper.from_array(half, name))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        onnx.save(model, path)

    return write


def of_onnx(path):
    return fl.interop.onnx.layers(path)


WRITERS = {
    "own": write_own,
    "npz": write_npz,
    "torch": write_torch("float32", True),
    "torch, float64": write_torch("float64", True),
    "torch, float16": write_torch("float16", True),
    "torch, bfloat16": write_torch("bfloat16", True),
    "torch before 1.6, bfloat16": write_torch("bfloat16", False),
    "safetensors": write_safetensors("float32"),
    "safetensors, bfloat16": write_safetensors("bfloat16"),
    "ONNX, one layer": write_onnx(lambda: fl.GRU(450, 500, rng=0)),
    "ONNX": write_onnx(lambda: fl.LSTM(250, 300, 2, bidirectional=True, rng=0)),
    "ONNX, float16": write_half_onnx(is_cast=False),
    "ONNX, float16 cast to float32": write_half_onnx(is_cast=True),
}
READERS = {"ONNX, float16": of_onnx}


@pytest.mark.parametrize("kind", WRITERS)
def test_memory(kind, tmp_path):
    path = tmp_path / "model"
    WRITERS[kind](path)
    size = os.path.getsize(path)
    assert size > 5 * SMALL
    read = READERS.get(kind, fl.load)
    read(path)  # imports what it needs
    tracemalloc.start()
    try:
        read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    parsed = 0
    if "ONNX" in kind:  # by protobuf, in memory that is not traced
        from fastlstm.interop.onnx.wire import parse

        parsed = parse(path, path.read_bytes())[0].ByteSize()
    assert peak + parsed <= 3 * size + SMALL
