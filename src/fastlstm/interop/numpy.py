"""NumPy's ``.npz``: a zip archive of arrays, of which none may need a pickle."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.interop.arrays import read_layer
from fastlstm.interop.reading import Archive, Hints, reading
from fastlstm.safetensors import MOST_AXES, Path

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit
ENTRY = re.compile(
    r"'(descr|fortran_order|shape)'\s*:\s*"
    r"('[<>|=]?[A-Za-z]\d{0,9}'|True|False|\(\s*(?:\d{1,18}L?\s*(?:,\s*|(?=\))))*\))"
)
HEADER = re.compile(rf"\{{(?:\s*{ENTRY.pattern}\s*,?){{3}}\s*\}}")  # of a dtype that is no record


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
        self.archive.charge(name, 2 * len(data))  # the layer's own arrays
        try:
            return read_array(data)
        except ValueError as error:
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
    ValueError
        It is not one, or its elements are no numbers.
    """
    if data[:6] != MAGIC or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError(f"expected {MAGIC!r} and a version of 1 to 3, got {data[:8]!r}")
    width = 2 if data[6] == 1 else 4
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > LONGEST_HEADER or end > len(data):
        raise ValueError(f"a header of {end - begin} bytes in a file of {len(data)}")
    text = data[begin:end].decode("latin1").strip()
    header = dict(ENTRY.findall(text)) if HEADER.fullmatch(text) else {}
    if len(header) != 3:
        raise ValueError(f"expected descr, fortran_order and shape of numbers, got {text:.100}")
    sizes = [int(size.rstrip("L")) for size in header["shape"][1:-1].split(",") if size.strip()]
    if len(sizes) > MOST_AXES:
        raise ValueError(f"expected at most {MOST_AXES} axes, got {len(sizes)}")
    try:
        dtype = np.dtype(header["descr"].strip("'"))
    except TypeError as error:
        raise ValueError(str(error)) from None
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"expected a dtype of numbers, got {dtype}")
    if math.prod(sizes) * dtype.itemsize != len(data) - end:
        raise ValueError(f"shape {sizes} of {dtype} does not fit {len(data) - end} bytes")
    array = np.frombuffer(data, dtype, offset=end)
    if header["fortran_order"] == "True":
        return array.reshape(sizes[::-1]).T
    return array.reshape(sizes)
