"""Files of arrays against the package safetensors; damaged ones are refused."""

import errno
import json
import os
import stat

import numpy as np
import pytest

from fastlstm.safetensors import read_safetensors, write_safetensors

CODES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
SHAPES = [(), (0,), (3,), (2, 0, 3), (3, 5), (2, 1, 4)]


def some_arrays(rng):
    return {
        f"{code}.{k} ü": (100 * rng.standard_normal(shape)).astype(code)
        for code in CODES
        for k, shape in enumerate(SHAPES)
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        wide = array.astype(np.float32) if array.dtype == np.float16 else array
        assert actual[name].dtype == wide.dtype
        assert actual[name].shape == wide.shape
        assert actual[name].dtype.isnative
        np.testing.assert_array_equal(actual[name], wide)


def test_round_trip(rng, tmp_path):
    arrays, metadata = some_arrays(rng), {"a": "1", "é": '{"}'}
    write_safetensors(tmp_path / "f", arrays, metadata)
    actual, found = read_safetensors(tmp_path / "f")
    assert_same(actual, arrays)
    assert found == metadata
    assert all(array.flags.writeable for array in actual.values())
    write_safetensors(str(tmp_path / "f"), {})
    assert read_safetensors(str(tmp_path / "f")) == ({}, {})


def test_their_package_reads_our_files(rng, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = some_arrays(rng)
    write_safetensors(tmp_path / "f", arrays, {"a": "1"})
    theirs = numpy.load_file(tmp_path / "f")
    assert theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        assert theirs[name].dtype == array.dtype
        np.testing.assert_array_equal(theirs[name], array)
    with safetensors.safe_open(tmp_path / "f", "np") as file:
        assert file.metadata() == {"a": "1"}


def test_we_read_their_files(rng, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = some_arrays(rng)
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    numpy.save_file(arrays, tmp_path / "f", {"a": "1"})
    actual, metadata = read_safetensors(tmp_path / "f")
    assert_same(actual, arrays)
    assert metadata == {"a": "1"}


def test_bfloat16_as_torch(rng, tmp_path):
    torch = pytest.importorskip("torch")
    of_torch = pytest.importorskip("safetensors.torch")
    tensor = torch.tensor(rng.standard_normal((3, 4)), dtype=torch.bfloat16)
    tensor[0, 0], tensor[1, 1] = torch.inf, torch.nan
    of_torch.save_file({"a": tensor}, tmp_path / "f")
    actual, _ = read_safetensors(tmp_path / "f")
    assert actual["a"].dtype == np.float32
    np.testing.assert_array_equal(actual["a"], tensor.float().numpy())


def test_any_strides_and_byte_orders(rng, tmp_path):
    array = rng.standard_normal((4, 6))
    given = {"turned": array.T, "every second": array[::2, ::-2], "big": array.astype(">f4")}
    write_safetensors(tmp_path / "f", given)
    actual, _ = read_safetensors(tmp_path / "f")
    for name, expected in given.items():
        np.testing.assert_array_equal(actual[name], expected)


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        ({"a": np.ones(2, complex)}, None),
        ({"a": np.array([None])}, None),
        ({"a": np.ones(2, np.longdouble)}, None),
        ({1: np.ones(2)}, None),
        ({"__metadata__": np.ones(2)}, None),
        ({"a": np.ones(2)}, {"a": 1}),
        ({"a": np.ones(2)}, {1: "a"}),
    ],
)
def test_what_the_format_has_not(tmp_path, arrays, metadata):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match=r"^arrays"):
        write_safetensors(path, arrays, metadata)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_arrays_are_aligned_in_a_file(tmp_path):
    """Others map files into memory."""
    given = {code: np.ones(3, code) for code in ("u1", "f4", "f2", "f8")}
    write_safetensors(tmp_path / "f", given, {"a": "123"})
    whole = (tmp_path / "f").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    claims = json.loads(whole[8 : 8 + length])
    for code, array in given.items():
        assert (8 + length + claims[code]["data_offsets"][0]) % array.itemsize == 0


# A file of its parts: the length that the header claims, the header, and the data.


def header(**claims):
    return json.dumps(claims).encode()


def claim(dtype="F32", shape=(2,), begin=0, end=8, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


GOOD = header(a=claim())
DATA = bytes(8)


def file(text=GOOD, data=DATA, length=None):
    length = len(text) if length is None else length
    return length.to_bytes(8, "little") + text + data


BAD = {
    "empty": b"",
    "shorter than a length": b"1234567",
    "no header": (100).to_bytes(8, "little"),
    "a header cut off": file()[:20],
    "a length beyond the file": file(length=len(GOOD) + 9),
    "a length beyond all": file(length=2**64 - 1),
    "a length too small": file(length=len(GOOD) - 1),
    "a length of 0": file(length=0),
    "a length into the data": file(length=len(GOOD) + 8),
    "data cut off": file()[:-1],
    "more data": file(data=bytes(9)),
    "no data": file(data=b""),
    "no object": file(b"[1]"),
    "space before": file(b" " + GOOD),
    "no JSON": file(b"{a}"),
    "no UTF-8": file(GOOD.replace(b"a", b"\xff", 1)),
    "deep nesting": file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""),
    "deep lists": file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "a number of many digits": file(b'{"a":' + b"9" * 10_000 + b"}", b""),
    "two of a name": file(GOOD[:-1] + b"," + GOOD[1:]),
    "two of a key": file(GOOD.replace(b'"shape"', b'"dtype"')),
    "no claim": file(header(a=1)),
    "a key missing": file(GOOD.replace(b'"shape"', b'"form"')),
    "a key too many": file(header(a=claim(strides=[1]))),
    "an unknown dtype": file(header(a=claim("F31"))),
    "a dtype of another kind": file(header(a=claim(["F32"]))),
    "an unknown short dtype": file(header(a=claim("F8_E4M3", [8]))),
    "a wrong dtype": file(header(a=claim("F64"))),
    "a wrong shape": file(header(a=claim(shape=[3]))),
    "a negative shape": file(header(a=claim(shape=[-2]))),
    "two negative sizes": file(header(a=claim(shape=[-2, -1]))),
    "a shape of floats": file(header(a=claim(shape=[2.0]))),
    "a shape of bools": file(header(a=claim(shape=[2, True]))),
    "a shape of text": file(header(a=claim(shape="2"))),
    "a huge shape": file(header(a=claim(shape=[2**62, 2**62]))),
    "beyond 64 bits": file(header(a=claim(shape=[2**64, 0], end=0)), b""),
    "a huge empty shape": file(header(a=claim(shape=[2**62, 2**62, 0], end=0)), b""),
    "too many axes": file(header(a=claim(shape=[2] + [1] * 70))),
    "one offset": file(GOOD.replace(b"[0, 8]", b"[0]")),
    "a negative offset": file(header(a=claim(begin=-8, end=0))),
    "offsets turned": file(header(a=claim(begin=8, end=0))),
    "offsets beyond the data": file(header(a=claim(begin=8, end=16))),
    "a hole before": file(header(a=claim(begin=4, end=12)), bytes(12)),
    "a hole between": file(header(a=claim(), b=claim(begin=12, end=20)), bytes(20)),
    "an overlap": file(header(a=claim(), b=claim(begin=4, end=12)), bytes(12)),
    "one place for two": file(header(a=claim(), b=claim())),
    "metadata of numbers": file(header(__metadata__={"a": 1}), b""),
    "metadata of text": file(header(__metadata__="a"), b""),
    "a pickle": b"\x80\x04\x95" + bytes(30),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_refused(tmp_path, name):
    path = tmp_path / "damaged"
    path.write_bytes(BAD[name])
    with pytest.raises(ValueError, match=r"damaged: not a valid safetensors file: \S"):
        read_safetensors(path)


def test_the_undamaged_file_is_read(tmp_path):
    (tmp_path / "f").write_bytes(file())
    arrays, _ = read_safetensors(tmp_path / "f")
    np.testing.assert_array_equal(arrays["a"], [0, 0])


def test_every_cut_and_every_flipped_byte_of_a_header(rng, tmp_path):
    """No damage crashes the reader, or gives it more than the file holds."""
    path = tmp_path / "f"
    write_safetensors(path, {"a": rng.standard_normal((3, 2)), "b": np.arange(5)}, {"k": "v"})
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="not a valid safetensors file"):
            read_safetensors(path)
    for at in range(end):
        for flipped in (0x01, 0x10, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :])
            try:
                arrays, _ = read_safetensors(path)
            except ValueError:
                continue
            assert sum(array.nbytes for array in arrays.values()) <= 2 * len(whole)


def test_a_longer_header_than_the_format_has(tmp_path):
    path = tmp_path / "f"
    with open(path, "wb") as big:
        big.write((100_000_001).to_bytes(8, "little") + b"{")
        big.truncate(200_000_000)  # no disk is used
    with pytest.raises(ValueError, match="a header of 100000001 bytes"):
        read_safetensors(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "f")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(monkeypatch, tmp_path, failing):
    path = tmp_path / "f"
    write_safetensors(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space"):
        write_safetensors(path, {"a": np.zeros(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


def test_errors_of_the_system_name_the_path_that_was_given(monkeypatch, tmp_path):
    """And no file that the user has never heard of."""
    monkeypatch.chdir(tmp_path)
    for path in ("missing/f", "."):
        with pytest.raises(OSError, match=rf": '{path}'$") as caught:
            write_safetensors(path, {"a": np.ones(3)})
        assert caught.value.filename == path
    assert os.listdir(tmp_path) == []
    assert not list(tmp_path.parent.glob("*.tmp"))


def test_a_file_is_complete_on_the_disk_before_it_has_its_name(monkeypatch, tmp_path):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, call=original: (calls.append(name), call(*a))[1]
        )
    write_safetensors(tmp_path / "f", {"a": np.ones(3)})
    assert calls == (["fsync", "replace", "fsync"] if os.name == "posix" else ["fsync", "replace"])


@pytest.mark.skipif(os.name != "posix", reason="links and modes are POSIX")
def test_links_and_modes(tmp_path):
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "f", tmp_path / "link"
    link.symlink_to(target)
    old = os.umask(0o027)
    try:
        write_safetensors(link, {"a": np.ones(3)})
    finally:
        os.umask(old)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "folder") == ["f"]
