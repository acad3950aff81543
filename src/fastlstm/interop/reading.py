"""What all readers of files share: their errors, their bounds, and what a user says beside a file.

A reader takes nothing on trust. It checks counts, offsets and shapes against the size of the file
before it makes an array, and it never executes what a file holds.
"""

import errno
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastlstm.safetensors import Path

MOST_TIMES, MARGIN = 3, 64 << 20  # memory for a file's arrays: times its size, plus bytes
MOST_MEMBERS = 65_536  # of an archive

# What a damaged file raises in the parsers of Python's library.
DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError),
    *(RecursionError, RuntimeError, TypeError, ValueError, struct.error, zlib.error),
    zipfile.BadZipFile,
)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Make a ValueError that names the path of whatever a damaged file raises."""
    name = os.fspath(path)
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place to seek to
            raise
        text = str(error) or type(error).__name__
        if isinstance(error, ValueError) and text.startswith(name):
            raise
        if not isinstance(error, (ValueError, TypeError)):
            text = f"damaged ({text:.200})"
        raise ValueError(f"{name}: {what}: {text}") from error


class Hints:
    """What a user says of a file: the arguments of `fastlstm.load` that are not None.

    A reader asks for what the file does not say. What nobody has asked for is refused at the end,
    so that no argument is ignored.
    """

    def __init__(self, **given: Any):
        self.given = {name: value for name, value in given.items() if value is not None}
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Return what the user says, or a default that belongs to the format."""
        self.asked.add(name)
        return self.given.get(name, default)

    def need(self, name: str, why: str) -> Any:
        """Return what the user must say; ValueError, with the reason, if it was not said."""
        self.asked.add(name)
        if name not in self.given:
            raise ValueError(f"{name}: expected as an argument, because {why}")
        return self.given[name]

    def check_all_asked(self) -> None:
        """Raise ValueError if something was said that no reader has asked for."""
        for name in sorted(self.given.keys() - self.asked):
            raise ValueError(
                f"{name}: expected None, since the file says it or has no use for it, "
                f"got {self.given[name]!r:.60}"
            )


def most_memory(size: int) -> int:
    """How many bytes the arrays of a file of `size` bytes may take together."""
    return MOST_TIMES * size + MARGIN


class Archive:
    """A zip file whose members are read into memory, each within bounds.

    Nothing is extracted to the disk, so the members' names lead nowhere.
    """

    def __init__(self, path: Path):
        self._file = zipfile.ZipFile(path)
        members = self._file.infolist()
        self.sizes = {member.filename: member.file_size for member in members}
        if len(members) > MOST_MEMBERS or len(self.sizes) != len(members):
            raise ValueError(f"expected at most {MOST_MEMBERS} members, each with its own name")
        self.left = most_memory(os.path.getsize(path))
        for member in members:
            if member.flag_bits & 1:
                raise ValueError(f"{member.filename!r:.80}: expected no encryption")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        if name not in self.sizes:
            raise ValueError(f"expected a member {name!r:.80}, got {list(self.sizes)!r:.200}")
        self.charge(name, self.sizes[name])
        with self._file.open(name) as member:
            data = member.read(self.sizes[name] + 1)
        if len(data) != self.sizes[name]:
            raise ValueError(f"{name!r:.80}: expected {self.sizes[name]} bytes")
        return data

    def charge(self, name: str, size: int) -> None:
        """Account for memory that a member takes; ValueError if it is too much for the file."""
        self.left -= size
        if self.left < 0:
            raise ValueError(f"{name!r:.80}: expands beyond {MOST_TIMES} times the file's size")


def read_json(text: bytes) -> Any:
    """Return the value of a JSON text, in which a name may stand once only in an object."""
    return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.80} stands twice in an object")
    return found


def read_numbers(field: str, value: Any, *shape: int | None) -> np.ndarray:
    """Return nested lists of JSON as a float64 array; None in `shape` stands for any size."""
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        array = None
    if array is None or not isinstance(value, list):
        raise ValueError(f"{field}: expected a list of numbers, got {value!r:.60}")
    if shape:
        fits = len(shape) == array.ndim and all(
            wanted is None or wanted == size
            for wanted, size in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{field}: expected shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{field}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    return array
