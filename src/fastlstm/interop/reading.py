"""What all readers of files share: their errors, their bounds, and what a user says beside a file.

A reader takes nothing on trust. It checks counts, offsets and shapes against the size of the file
before it makes an array, and it never executes what a file holds.
"""

import errno
import json
import os
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from fastlstm.checks import LARGEST, quiet
from fastlstm.safetensors import MARGIN, MOST_TIMES, Path, json_cost

MOST_MEMBERS = 65_536  # of an archive
MOST_LAYERS = 1_000  # of a model: each takes some kilobytes, however few its numbers
SHORT = reprlib.Repr()

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
    if json_cost(text) > most_memory(len(text)):
        raise ValueError(
            f"JSON: expected values that take at most {MOST_TIMES} times the file's size"
        )
    decoded = text.decode("utf-8-sig")
    del text  # half of the memory
    return json.loads(decoded, object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = iter(sorted(name for name, _ in pairs))
        last = next(names)
        while (twice := next(names)) != last:
            last = twice
        raise ValueError(f"{twice!r:.80}: expected once in an object, got it twice")
    return found


def shown(value: Any) -> str:
    """A value of a file as messages have it: short, however large the value is."""
    return SHORT.repr(value)[:80]


def read_count(field: str, value: Any, minimum: int = 1, most: int = LARGEST) -> int:
    """Return a whole number of JSON, within these bounds."""
    if type(value) is not int or not minimum <= value <= most:
        raise ValueError(
            f"{field}: expected a whole number from {minimum} to {most}, got {shown(value)}"
        )
    return value


KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def member(value: Any, field: str, kind: type, of: str = "") -> Any:
    """Return the member `field`, of this kind, of a JSON object; `of` is the object's own field."""
    name = f"{of}.{field}" if of else field
    if type(value) is not dict:
        raise ValueError(f"{of or 'JSON'}: expected an object, got {shown(value)}")
    if field not in value:
        raise ValueError(f"{name}: expected {KINDS[kind]}, got none")
    if type(value[field]) is not kind:
        raise ValueError(f"{name}: expected {KINDS[kind]}, got {shown(value[field])}")
    return value[field]


def read_json_numbers(field: str, value: Any, *shape: int | None) -> np.ndarray:
    """Return nested lists of JSON as a float32 array; None in `shape` stands for any size."""
    flat, sizes = [value], []
    while type(flat[0]) is list:
        size = len(flat[0])
        if any(type(part) is not list or len(part) != size for part in flat):
            raise ValueError(f"{field}: expected lists of equal sizes, got {shown(value)}")
        sizes.append(size)
        flat = flat[0] if len(flat) == 1 else list(chain.from_iterable(flat))
        if not flat:
            break
    if not sizes or not {*map(type, flat)} <= {int, float}:
        raise ValueError(f"{field}: expected a list of numbers, got {shown(value)}")
    if shape and (
        len(shape) != len(sizes)
        or any(want not in (None, size) for want, size in zip(shape, sizes, strict=True))
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{field}: expected shape ({wanted}), got ({', '.join(map(str, sizes))})")
    try:
        with quiet():
            array = np.array(flat, np.float64).astype(np.float32)
    except OverflowError:  # of a whole number, which float64 cannot hold
        array = np.array([np.inf], np.float32)
    if not np.isfinite(array).all():
        wrong = next(number for number in flat if not abs(number) < 2**128)
        raise ValueError(f"{field}: expected finite numbers of float32, got {shown(wrong)}")
    return array.reshape(sizes)
