"""HDF5 files, of which nothing but plain arrays is read, from the bytes of the file itself.

A package finds the arrays: pyfive, which is Python, or where it is absent h5py, whose C library can
hang on a damaged file. Where an array lies and how large it is said to be are checked here against
the file. Links are not followed, and arrays in other files, compressed or virtual ones are refused.
"""

import importlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from fastlstm.checks import missing
from fastlstm.interop.reading import most_memory
from fastlstm.safetensors import from_bfloat16

PACKAGES = "pyfive", "h5py"  # the first that is installed
MOST_READS = 200_000  # of the package in a file
MOST_PARTS = 4_096  # groups and arrays that are visited in a file
MOST_DEPTH = 24
SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Tree:
    """The groups, attributes and arrays of an HDF5 file in memory.

    Paths are tuples of names.
    """

    def __init__(self, data: bytes):
        if data[:8] != SIGNATURE:
            raise ValueError(f"expected an HDF5 file, got one that begins {data[:8]!r}")
        self._data = data
        self._package = _package()
        with _parsing("the file"):
            self._file = self._package.File(_Bounded(data), "r")
            if self._file.userblock_size:
                raise ValueError("expected no user block")
        self._found: dict[tuple[str, ...], Any] = {(): self._file}

    def names(self, *path: str) -> list[str]:
        """Return the names in a group, in their order; none if it is not there, or an array."""
        group = self._find(path)
        if not hasattr(group, "keys"):
            return []
        with _parsing("/".join(path)):
            return [str(name) for name in group]

    def has(self, *path: str) -> bool:
        """Whether there is a group or an array."""
        return self._find(path) is not None

    def attribute(self, name: str, *path: str) -> Any:
        """Return an attribute of a group or array, text as str and lists of text as lists; or None.

        Raises
        ------
        ValueError
            It is damaged.
        """
        found = self._find(path)
        if found is None:
            return None
        with _parsing(f"attribute {name} of {'/'.join(path) or '/'}"):
            value = found.attrs.get(name)
            if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
                return [_text(part) for part in value.ravel().tolist()]
            if isinstance(value, (bytes, np.bytes_)):
                return _text(value)
            return str(value) if isinstance(value, str) else value

    def array(self, *path: str) -> np.ndarray:
        """Return an array: a read-only view of the file's bytes.

        Raises
        ------
        ValueError
            It is not there, not of numbers, not stored as one block, or larger than the file.
        """
        name = "/".join(path)
        found = self._find(path)
        if found is None or not hasattr(found, "shape"):
            raise ValueError(
                f"{name}: expected an array, got {'none' if found is None else 'a group'}"
            )
        with _parsing(name):
            shape, dtype = found.shape, found.dtype
            if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
                raise ValueError(f"expected an array of numbers, got {dtype!s:.60}")
            is_brain = dtype == np.dtype("V2") and self.attribute("dtype", *path) == "bfloat16"
            dtype = np.dtype("<u2") if is_brain else dtype
            if dtype.kind not in "fiu":
                raise ValueError(f"expected real numbers, got {dtype!s:.60}")
            shape = tuple(map(int, shape))
            size = math.prod(shape) * dtype.itemsize
            if not 0 <= size <= len(self._data):
                raise ValueError(f"expected no more than the file has, got shape {shape}")
            if not size:
                return np.zeros(shape, dtype)
            offset = _offset(found)
            if offset + size > len(self._data):
                raise ValueError(f"expected {size} bytes at {offset}, beyond the end of the file")
            array = np.frombuffer(self._data, dtype, math.prod(shape), offset).reshape(shape)
            return from_bfloat16(array) if is_brain else array

    def _find(self, path: tuple[str, ...]) -> Any:
        """The group or array at a path; None if it is not there."""
        if path in self._found:
            return self._found[path]
        if len(self._found) > MOST_PARTS or len(path) > MOST_DEPTH:
            raise ValueError(f"expected at most {MOST_PARTS} parts and {MOST_DEPTH} levels")
        group, name = self._find(path[:-1]), path[-1]
        with _parsing("/".join(path)):
            found = None
            if hasattr(group, "keys") and name in group:
                if not name or "/" in name or not name.strip(".") or not _is_hard(group, name):
                    raise ValueError("expected a group or an array, got a link; none is followed")
                found = group[name]
        self._found[path] = found
        return found


def _package() -> Any:
    for name in PACKAGES:
        with suppress(ImportError):
            return importlib.import_module(name)
    raise missing("HDF5", "pyfive or h5py", "keras")


def _is_hard(group: Any, name: str) -> bool:
    """Whether a name of a group is that of an object, not of a link to a path."""
    links = getattr(group, "_links", None)  # of pyfive: an address, or the path of a soft link
    if links is not None:
        return not isinstance(links[name], str)
    return type(group.get(name, getlink=True)).__name__ == "HardLink"


def _offset(dataset: Any) -> int:
    """Where an array begins in the file."""
    offset = None
    if hasattr(dataset.id, "get_offset"):  # h5py
        is_plain = dataset.chunks is None and not dataset.is_virtual and dataset.external is None
        offset = dataset.id.get_offset() if is_plain else None
    elif dataset.id.layout_class == 1:  # contiguous
        offset = dataset.id.data_offset
    if offset is None:
        raise ValueError("expected an array stored as one block, as Keras writes it")
    return int(offset)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _parsing(what: str) -> Iterator[None]:
    """Make a ValueError of whatever a damaged file raises in a package."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what:.200}: {error}") from error
    except Exception as error:  # any kind, as packages do not check what they read
        text = f"{type(error).__name__}: {error!s:.120}"
        raise ValueError(f"{what:.200}: damaged ({text})") from error


class _Bounded(io.BytesIO):
    """The bytes of a file, of which a package reads no more than an undamaged file needs."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._reads, self._left = MOST_READS, most_memory(len(data))

    def _count(self, size: int) -> None:
        self._reads -= 1
        self._left -= size
        if self._reads < 0 or self._left < 0:
            raise ValueError("expected fewer parts in a file of its size")

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._count(len(data))
        return data

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self._count(size)
        return size
