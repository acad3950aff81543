"""NumPy's ``.npz``: a zip archive of arrays, of which none may need a pickle."""

import ast
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.interop.arrays import read_layer
from fastlstm.interop.reading import Archive, Hints, reading
from fastlstm.safetensors import Path

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit
DTYPE = re.compile(r"[<>|=]?[a-z]\d+", re.IGNORECASE)
MOST_AXES = 32  # NumPy 1 has no more


def read(path: Path, hints: Hints) -> Any:
    """Return the recurrent layer of the file: see `fastlstm.from_arrays`."""
    with reading(path, "npz"), Archive(path) as archive:
        return read_layer(Arrays(archive), hints)


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an archive by name, each read when it is asked for."""

    def __init__(self, archive: Archive):
        self.archive = archive

    def __getitem__(self, name: str) -> np.ndarray:
        if f"{name}.npy" not in self.archive.sizes:
            raise KeyError(name)
        data = self.archive.read(f"{name}.npy")
        try:
            return read_array(data)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{name}: not a valid array: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(".npy") for name in self.archive.sizes)

    def __len__(self) -> int:
        return len(self.archive.sizes)


def read_array(data: bytes) -> np.ndarray:
    """Return the array of a ``.npy`` file, with NumPy's own meaning of it, but no pickle.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    ValueError, SyntaxError, MemoryError, RecursionError
        It is not one, or has Python's objects.
    """
    if data[:6] != MAGIC or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError(f"expected {MAGIC!r} and a version of 1 to 3, got {data[:8]!r}")
    width = 2 if data[6] == 1 else 4
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > LONGEST_HEADER or end > len(data):
        raise ValueError(f"a header of {end - begin} bytes in a file of {len(data)}")
    header = ast.literal_eval(data[begin:end].decode("latin1" if data[6] < 3 else "utf8").strip())
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("the header has not descr, fortran_order and shape")
    descr, shape, is_fortran = header["descr"], header["shape"], header["fortran_order"]
    if not isinstance(descr, str) or not DTYPE.fullmatch(descr):
        raise ValueError(f"expected a dtype of numbers, got {descr!r:.60}")
    if (
        not isinstance(shape, tuple)
        or len(shape) > MOST_AXES
        or not all(type(size) is int and 0 <= size < 2**63 for size in shape)
    ):
        raise ValueError(f"expected a shape, got {shape!r:.60}")
    if type(is_fortran) is not bool:
        raise ValueError(f"fortran_order: expected True or False, got {is_fortran!r:.60}")
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if dtype.hasobject:
        raise ValueError(f"expected a dtype of numbers, got {descr!r}, which needs a pickle")
    if math.prod(shape) * dtype.itemsize != len(data) - end:
        raise ValueError(f"shape {shape} of {dtype} does not fit {len(data) - end} bytes")
    array = np.frombuffer(data, dtype, offset=end)
    return array.reshape(shape, order="F" if is_fortran else "C")
