"""NumPy's .npz and safetensors, with arrays of other makers and of bad intent."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from compare import assert_same_bits
from mutants import refused

import fastlstm as fl


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bin"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_npz(tmp_path, rng, save, dtype):
    layer = fl.LSTM(3, 5, 2, proj_size=2, bidirectional=True, dtype=np.float64, rng=rng)
    arrays = {f"a/lstm.{n}": a.astype(dtype) for n, a in layer.state_dict().items()}
    arrays["a/lstm.weight_hh_l1"] = np.asfortranarray(arrays["a/lstm.weight_hh_l1"])
    others = {"x": np.ones((3, 4)), "names": np.array(["a", "b"]), "empty": np.zeros((0, 3))}
    save(tmp_path / "model.npz", **others, **arrays)
    found = fl.load(tmp_path / "model.npz", batch_first=True)
    assert found.batch_first
    read = np.float64 if dtype == "<f8" else np.float32
    for name, array in arrays.items():
        assert_same_bits(found.parameters()[name[7:]], array.astype(read), name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_safetensors_of_their_own_writer(path, rng, dtype):
    safetensors = pytest.importorskip("safetensors.numpy")
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    layer = fl.GRU(3, 5, 2, bidirectional=True, dtype=np.float64, rng=rng)
    arrays = {f"rnn.{name}": array.astype(kind) for name, array in layer.state_dict().items()}
    data = safetensors.save(arrays | {"fc.weight": np.ones((2, 3), np.float32)}, {"format": "pt"})
    path.write_bytes(data)
    found = fl.load(path)
    read = np.float64 if dtype == "float64" else np.float32
    for name, array in arrays.items():
        assert_same_bits(found.parameters()[name[4:]], array.astype(read), name)
    with pytest.raises(ValueError, match=f"{path}.*prefix: no recurrent layer"):
        fl.load(path, prefix="lstm")
    with pytest.raises(ValueError, match=f"{path}.*modules: expected None"):
        fl.load(path, modules={})


def test_a_header_of_many_values(monkeypatch, path):
    monkeypatch.setattr("fastlstm.safetensors.MARGIN", 100_000)
    header = b'{"a":[' + b"[]," * 10_000 + b"[]]}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(path, "a header of more values than a file of")


def test_one_array_and_plain_pickles_say_what_to_do(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    refused(path, "a single array; use numpy.load")
    path.write_bytes(pickle.dumps({"weight_ih_l0": np.ones(3)}))
    refused(path, "a pickle, which would execute code")


class Evil:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def npy(descr="<f4", shape="(15, 3)", data=bytes(180), fortran="False", version=1):
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    header += b" " * (53 - len(header) % 64) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def write_npz(path, compression=zipfile.ZIP_STORED, **members):
    arrays = fl.GRU(3, 5, rng=0).state_dict()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, array in arrays.items():
            if f"{key}.npy" not in members:
                written = io.BytesIO()
                np.save(written, array)
                archive.writestr(f"{key}.npy", written.getvalue())
        for member, data in members.items():
            archive.writestr(member, data)
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_npz_by_hand(path, rng, version):
    array = rng.standard_normal((15, 3), dtype=np.float32)
    swapped = array.astype(">f4")
    for data, descr, fortran in (
        (array.tobytes(), "'<f4'", "False"),
        (swapped.tobytes(order="F"), "'>f4'", "True"),
    ):
        member = npy(descr, data=data, fortran=fortran, version=version)
        layer = fl.load(write_npz(path, **{"weight_ih_l0.npy": member}))
        assert (layer.weight_ih_l0 == array).all()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("'|O'", data=pickle.dumps(Evil(os.system, "true"))), "of numbers, got"),
        (npy("'<f4'", "(15, 3000000000)"), "does not fit 180 bytes"),
        (npy("'<f4'", "(4294967296, 4294967296)"), "does not fit 180 bytes"),
        (npy("'<f4'", "(-15, -3)"), "of numbers, got"),
        (npy("'<f4'", "(15, True)"), "of numbers, got"),
        (npy("'<f4'", "15"), "of numbers, got"),
        (npy("'<f4'", f"({'1,' * 64})"), "at most 32 axes"),
        (npy("[('a', '<f4')]"), "of numbers, got"),
        (npy("'<f3'"), "f3"),
        (npy("'<V4'"), "expected real or integer numbers"),
        (npy("'<U1'"), "expected real or integer numbers"),
        (npy("'<i4'"), "quantized"),
        (npy("'<f4'", "(15, 3)", fortran="1"), "of numbers, got"),
        (npy("__import__('os').system('true')"), "of numbers, got"),
        (npy("'<f4'", "(" * 3000 + ")" * 3000), "of numbers, got"),
        (npy("'<f4'", "(15, 3), 'more': 1"), "of numbers, got"),
        (npy("'<f4'", "(15, 3)" + " " * 20_000), "a header of"),
        (npy("'<f4'", "(15, 3)", version=4), "a version of 1 to 3"),
        (npy("'<f4'")[:50], "a header of"),
        (b"", "a version of 1 to 3"),
        (b"\x93NUMPY", "a version of 1 to 3"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_odd_arrays(path, member, message):
    write_npz(path, **{"weight_ih_l0.npy": member})
    refused(path, message)
    refused(path, "weight_ih_l0: ")


def test_npz_bombs(monkeypatch, path):
    monkeypatch.setattr("fastlstm.interop.reading.MARGIN", 1_000_000)
    zeros = npy("'<f4'", "(15, 50000)", bytes(3_000_000))
    write_npz(path, zipfile.ZIP_DEFLATED, **{"weight_ih_l0.npy": zeros})
    refused(path, "expands beyond 3 times")
    zeros = np.zeros((60, 20), np.float32)
    many = {f"weight_{part}_l{k}": zeros for k in range(60) for part in ("ih", "hh")}
    with path.open("wb") as file:
        np.savez_compressed(file, **many)
    refused(path, "expands beyond 3 times")
