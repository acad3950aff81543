"""Files of arrays in the format safetensors: a header in JSON, then the bytes of the arrays.

The format: https://github.com/huggingface/safetensors. Nothing in a file is trusted: before an
array is made, the header's claims must account for every byte of the file.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from fastlstm.checks import read_plain

DTYPES = {
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
    "F32": "<f4",
    "I32": "<i4",
    "U32": "<u4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I16": "<i2",
    "U16": "<u2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}
LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
MOST_AXES = 32  # NumPy 1 has no more
MOST_TIMES, MARGIN = 3, 64 << 20  # memory for what a file has: times its size, plus bytes
# About how many bytes Python takes for what a mark of JSON stands for: a list, an object, half a
# text, a name, any other value.
COSTS = {b"[": 80, b"{": 240, b'"': 40, b":": 200, b",": 40}

Path = str | os.PathLike[str]


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all arrays of a file, and its metadata.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    arrays : dict of str to array
        F16 and BF16 as float32.
    metadata : dict of str to str

    Raises
    ------
    ValueError
        The file is not a whole and valid safetensors file.
    OSError
        It cannot be read.
    """
    with open(path, "rb") as file:
        try:
            return _read(file, os.fstat(file.fileno()).st_size)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)}: not a valid safetensors file: {error}") from error


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, given as uint16, as float32, whose upper half they are."""
    array = np.empty(bits.shape, np.float32)
    np.left_shift(bits, 16, out=array.view(np.uint32), dtype=np.uint32)
    return array


def write_safetensors(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays and metadata to a file, which changes at once or, after an error, not at all.

    Parameters
    ----------
    path : str or path
    arrays : mapping of str to array
        Of real numbers, integers or bools.
    metadata : mapping of str to str, optional

    Raises
    ------
    TypeError
        A name or a value of the metadata is not text, or the format has no such dtype.
    OSError
        The file cannot be written.
    """
    texts = [*arrays, *(metadata or {}), *(metadata or {}).values()]
    if not all(isinstance(text, str) for text in texts) or "__metadata__" in arrays:
        raise TypeError("arrays, metadata: expected text as names, and no array __metadata__")
    given = {name: read_plain(f"arrays[{name!r}]", array) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    # Larger numbers first, so that all are aligned.
    ordered = sorted(given.items(), key=lambda item: -item[1].itemsize)
    for name, array in ordered:
        code = array.dtype.newbyteorder("<")
        if code not in NAMES:
            raise TypeError(f"arrays[{name!r}]: safetensors has no dtype {array.dtype}")
        end = offset + array.nbytes
        header[name] = {
            "dtype": NAMES[code],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    little = (array.astype(array.dtype.newbyteorder("<"), "C", copy=False) for _, array in ordered)
    data = (array.reshape(-1).view(np.uint8) for array in little)
    write_atomically(path, [len(text).to_bytes(8, "little"), text], data)


def write_atomically(path: Path, *parts: Iterable[Any]) -> None:
    """Write bytes to a file, which after any failure, also of the machine, is the old or the new.

    Parameters
    ----------
    path : str or path
        If it is a link, the file behind it is replaced.
    *parts : iterables of bytes or of uint8 arrays
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in parts:
                for data in part:
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def json_cost(text: bytes) -> int:
    """Return about how many bytes of memory the values of a JSON text take."""
    cost = sum(bytes_each * text.count(mark) for mark, bytes_each in COSTS.items())
    return cost + (0 if text.isascii() else 4 * len(text))


def _read(file: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    text = file.read(length)
    if text[:1] != b"{":
        raise ValueError("the header does not begin with {")
    if json_cost(text) > MOST_TIMES * size + MARGIN:
        raise ValueError(f"a header of more values than a file of {size} bytes has arrays")
    header = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("the metadata is not a mapping of text to text")
    claims = {name: _read_claim(name, claim) for name, claim in header.items()}
    expected = 0
    for name, (_, _, begin, end) in sorted(claims.items(), key=lambda item: item[1][2:]):
        if begin != expected:
            raise ValueError(f"{name!r} begins at byte {begin} of the data, expected {expected}")
        expected = end
    if expected != size - 8 - length:
        raise ValueError(f"{expected} bytes of data expected, {size - 8 - length} found")
    arrays = {}
    for name, (dtype, shape, begin, _) in claims.items():
        file.seek(8 + length + begin)
        arrays[name] = _read_array(file, dtype, shape)
    return arrays, metadata


def _read_claim(name: str, claim: Any) -> tuple[str, tuple[int, ...], int, int]:
    """What the header says of an array: its dtype, its shape, and where it begins and ends."""
    if not isinstance(claim, dict) or claim.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r} has the unknown dtype {dtype!r:.40}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**63 for number in numbers
        ):
            raise ValueError(f"{name!r} has a shape or offsets that are not whole numbers")
    if len(shape) > MOST_AXES or len(offsets) != 2:
        raise ValueError(f"{name!r} has {len(shape)} axes and {len(offsets)} offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise ValueError(f"{name!r} has shape {shape}, which {end - begin} bytes do not hold")
    return dtype, tuple(shape), begin, end


def _read_array(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, DTYPES[dtype])
    flat = array.reshape(-1).view(np.uint8)
    if file.readinto(flat) != flat.size:  # type: ignore[attr-defined]
        raise ValueError("it became shorter while it was read")
    if dtype == "BOOL":
        return array.view(np.uint8).astype(np.bool_)
    if dtype == "BF16":
        return from_bfloat16(array)
    if dtype == "F16":
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return found
