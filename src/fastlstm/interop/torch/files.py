"""torch's two forms of a file: a zip archive, and the older row of pickles."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from fastlstm.interop.reading import Archive, most_memory
from fastlstm.interop.torch.unpickler import load
from fastlstm.interop.torch.values import Global, Storage
from fastlstm.safetensors import Path

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older form
# The dtypes of torch's storages; bfloat16 is the upper half of a float32.
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
BFLOAT16 = np.dtype("<u2")


def dtype_of(name: str) -> np.dtype:
    """Return NumPy's dtype of one of torch's, which is little endian."""
    if name not in STORAGES.values():
        raise ValueError(f"expected a tensor of numbers, got dtype {name!r:.40}")
    return BFLOAT16 if name == "bfloat16" else np.dtype(name).newbyteorder("<")


class File:
    """The object of a torch file, and the bytes of the storages that it names."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.value: Any = None
        self.left = 0  # bytes of memory that tensors may take
        self.is_big_endian = False
        self._read: dict[str, bytes] = {}

    def storage_of(self, persistent: Any) -> Any:
        """Return the storage that a persistent id of a pickle names.

        In the older form, it can also name the class of a whole module, beside its source.
        """
        if isinstance(persistent, tuple) and persistent[:1] == ("module",) and persistent[1:]:
            return persistent[1]
        if not isinstance(persistent, tuple) or len(persistent) not in (5, 6):
            raise ValueError("expected a persistent id of torch's storages")
        what, kind, key, _, size, *view = persistent
        if what != "storage" or not isinstance(kind, Global) or not isinstance(key, str):
            raise ValueError("expected a persistent id of torch's storages")
        if type(size) is not int or not 0 <= size < 2**63:
            raise ValueError(f"storage {key!r:.40}: expected a whole number as its size")
        storage = Storage(kind.name, key, size)
        known = self.storages.setdefault(key, storage)
        if known != storage:
            raise ValueError(f"storage {key!r:.40}: has two sizes or dtypes")
        if view and view[0] is not None:
            storage = _view(storage, view[0])
        return storage

    def bytes_of(self, storage: Storage) -> bytes:
        """Return the bytes of a whole storage, whose size must be that of the pickle."""
        if storage.key not in self._read:
            self.charge(self.size_of(storage.key))
            self._read[storage.key] = self._bytes_of(storage.key)
        return self._read[storage.key]

    def _bytes_of(self, key: str) -> bytes:
        raise NotImplementedError

    def charge(self, size: int) -> None:
        """Account for memory that is to be taken; ValueError if it is too much for the file."""
        self.left -= size
        if self.left < 0:
            raise ValueError("expected tensors of no more memory than the file's size allows")

    def size_of(self, key: str) -> int:
        """The bytes of a storage, as the pickle has it."""
        kind, size = self.storages[key].kind, self.storages[key].size
        if kind not in STORAGES:
            raise ValueError(f"storage {key!r:.40}: expected one of numbers, got {kind!r:.40}")
        return size * dtype_of(STORAGES[kind]).itemsize


def _view(storage: Storage, view: Any) -> Storage:
    """The older form's view of a part of a storage."""
    if not isinstance(view, tuple) or len(view) != 3:
        raise ValueError(f"storage {storage.key!r:.40}: expected a view of three parts")
    _, offset, size = view
    if not all(type(n) is int and n >= 0 for n in (offset, size)) or offset + size > storage.size:
        raise ValueError(f"storage {storage.key!r:.40}: has a view beyond its end")
    return storage._replace(size=size, offset=offset)


class ZipFile(File):
    """The form of torch 1.6 and later, and that of TorchScript."""

    def __init__(self, archive: Archive):
        super().__init__()
        self.archive = archive
        found = [name for name in archive.sizes if name.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise ValueError(f"expected one member data.pkl, got {len(found)}")
        self.root = found[0].removesuffix("data.pkl")
        if f"{self.root}byteorder" in archive.sizes:
            order = archive.read(f"{self.root}byteorder")
            if order not in (b"little", b"big"):
                raise ValueError(f"byteorder: expected little or big, got {order!r:.40}")
            self.is_big_endian = order == b"big"
        data = archive.read(found[0])
        self.value, self.left = load(io.BytesIO(data), self.storage_of, archive.left)

    def _bytes_of(self, key: str) -> bytes:
        name, wanted = f"{self.root}data/{key}", self.size_of(key)
        if self.archive.sizes.get(name, wanted) != wanted:
            got = self.archive.sizes[name]
            raise ValueError(f"{name!r:.80}: expected {wanted} bytes, got {got}")
        return self.archive.read(name)


class OldFile(File):
    """The form before torch 1.6: pickles, and then the storages."""

    def __init__(self, file: BinaryIO, size: int):
        super().__init__()
        self.file, self.left = _Bounded(file, size), most_memory(size)
        for what, wanted in (("magic number", MAGIC), ("protocol", PROTOCOL)):
            if self._load() != wanted:
                raise ValueError(f"{what}: expected {wanted}")
        system = self._load()
        if not isinstance(system, dict) or type(system.get("little_endian")) is not bool:
            raise ValueError("expected what the system is, with little_endian")
        self.is_big_endian = not system["little_endian"]
        self.value, keys = self._load(), self._load()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("expected a list of the storages' keys")
        self.places: dict[str, int] = {}
        for key in keys:
            if key not in self.storages or key in self.places:
                raise ValueError(f"storage {key!r:.40}: expected to be named once by the object")
            (count,) = struct.unpack(">q" if self.is_big_endian else "<q", self.file.read(8))
            if count != self.storages[key].size:
                wanted = self.storages[key].size
                raise ValueError(f"storage {key!r:.40}: expected {wanted} numbers, got {count}")
            self.places[key] = self.file.tell()
            self.file.skip(self.size_of(key))

    def _load(self) -> Any:
        value, self.left = load(self.file, self.storage_of, self.left)
        return value

    def _bytes_of(self, key: str) -> bytes:
        if key not in self.places:
            raise ValueError(f"storage {key!r:.40}: expected its numbers, got none")
        return self.file.read_at(self.places[key], self.size_of(key))


class _Bounded:
    """A file that is never asked for more bytes than it has."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size

    def read(self, count: int) -> bytes:
        return self.file.read(max(0, min(count, self.size - self.file.tell())))

    def readline(self) -> bytes:
        return self.file.readline(self.size)

    def tell(self) -> int:
        return self.file.tell()

    def skip(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise ValueError(f"expected {count} bytes, got {self.size - self.file.tell()}")
        self.file.seek(count, os.SEEK_CUR)

    def read_at(self, place: int, count: int) -> bytes:
        self.file.seek(place)
        return self.read(count)


@contextmanager
def open_file(path: Path) -> Iterator[File]:
    """Read the object of a file of either form, and keep the file open for its storages."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            yield OldFile(file, os.fstat(file.fileno()).st_size)
            return
    with Archive(path) as archive:
        yield ZipFile(archive)
