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
}


@pytest.mark.parametrize("kind", WRITERS)
def test_memory(kind, tmp_path):
    path = tmp_path / "model"
    WRITERS[kind](path)
    size = os.path.getsize(path)
    assert size > 5 * SMALL
    fl.load(path)  # imports what it needs
    tracemalloc.start()
    try:
        fl.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    parsed = size if "ONNX" in kind else 0  # by protobuf, in memory that is not traced
    assert peak + parsed <= 3 * size + SMALL
