"""Pickles and torch files put together operation by operation, without torch."""

import struct
import zipfile

import numpy as np

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # LONG1 of the older form
KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "u2": "BFloat16Storage"}


def name(module, attribute):
    return b"c" + f"{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def values(*parts):
    return b"(" + b"".join(parts) + b"t"


def mapping(parts):
    return b"}(" + b"".join(text(key) + value for key, value in parts.items()) + b"u"


def called(function, *arguments):
    return function + values(*arguments) + b"R"


def whole(value):
    return b"\x80\x02" + value + b"."


def storage(kind, key, size, *view):
    parts = text("storage"), name("torch", kind), text(key), text("cpu"), number(size)
    return values(*parts, *view) + b"Q"


def tensor(stored, offset, shape, strides):
    sizes = (values(*map(number, part)) for part in (shape, strides))
    function = name("torch._utils", "_rebuild_tensor_v2")
    return called(function, stored, number(offset), *sizes, b"\x89", called(ORDERED))


ORDERED = name("collections", "OrderedDict")


def described(array, key, *view):
    """The tensor of a contiguous array with a storage of its own."""
    strides = [stride // array.itemsize for stride in array.strides]
    kind = KINDS[array.dtype.str[1:]]
    return tensor(storage(kind, key, array.size, *view), 0, array.shape, strides)


def write_zip(path, pickled, storages=(), compression=zipfile.ZIP_STORED, **members):
    """Write torch's newer form; storages are bytes, by the order of their keys."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
        for member, data in members.items():
            archive.writestr(f"archive/{member}", data)
    return path


def write_old(path, pickled, storages=(), little=True, keys=None):
    """Write torch's older form; a storage is how many numbers it has, and its bytes."""
    keys = [str(key) for key in range(len(storages))] if keys is None else keys
    parts = [
        whole(MAGIC),
        whole(number(1001)),
        whole(mapping({"little_endian": b"\x88" if little else b"\x89"})),
        pickled,
        whole(b"](" + b"".join(map(text, keys)) + b"e"),
    ]
    count = struct.Struct("<q" if little else ">q")
    parts += [count.pack(size) + data for size, data in storages]
    path.write_bytes(b"".join(parts))
    return path


def write_state(path, arrays, write=write_zip, order="<"):
    """Write a state dict in either form, without torch."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    parts = {n: described(array, str(key)) for key, (n, array) in enumerate(arrays.items())}
    data = [array.astype(array.dtype.newbyteorder(order)).tobytes() for array in arrays.values()]
    if write is write_old:
        sized = [(a.size, part) for a, part in zip(arrays.values(), data, strict=True)]
        return write_old(path, whole(mapping(parts)), sized, order == "<")
    members = {"byteorder": b"little" if order == "<" else b"big"}
    return write_zip(path, whole(mapping(parts)), data, **members)
