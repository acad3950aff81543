"""ONNX files as bytes: how many parts they have, and where the numbers of large tensors stand.

The encoding: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import onnx

from fastlstm.interop.reading import reading

# Bytes that a field of each kind takes once parsed, and how many a file may need for them beside
# its size: empty messages take two bytes of a file and a hundred times as many in memory.
PART_BYTES, TEXT_BYTES, NUMBER_BYTES, MOST_PARTS = 300, 32, 16, 32 << 20
LARGE = 4096  # bytes of a tensor that are not parsed
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # fields of a model, a graph and a tensor

Numbers = dict[int, memoryview]


class Field(NamedTuple):
    """A field of a message, and where it begins, where its content does, and where both end."""

    number: int
    wire: int
    begin: int
    content: int
    end: int


def parse(name: str, data: bytes) -> tuple[Any, Numbers]:
    """The model of a file, and bytes of large initializers of its graph, by their places.

    The model lacks these bytes: protobuf would hold a copy of them, and make another at each look.
    """
    from google.protobuf.message import DecodeError  # which onnx depends on

    with reading(name, "an ONNX model"):
        _check_parts(data)
    rest, numbers = _without_numbers(data)
    try:
        return onnx.ModelProto.FromString(rest), numbers
    except DecodeError as error:
        raise ValueError(f"{name}: expected an ONNX model: {error!s:.200}") from error


def _without_numbers(data: bytes) -> tuple[bytes, Numbers]:
    """The bytes of a model without those of large initializers, and these by their places."""
    graphs = [field for field in _fields(data, 0, len(data)) if field[:2] == (GRAPH, 2)]
    if len(graphs) != 1:  # several would be merged
        return data, {}
    [graph] = graphs
    numbers: Numbers = {}
    parts: list[bytes | memoryview] = []
    view, at, place = memoryview(data), graph.content, -1
    for field in _fields(data, graph.content, graph.end):
        if field[:2] != (INITIALIZER, 2):
            continue
        place += 1
        raw = [one for one in _fields(data, field.content, field.end) if one.number == RAW_DATA]
        if len(raw) == 1 and raw[0].wire == 2 and raw[0].end - raw[0].content >= LARGE:
            numbers[place] = view[raw[0].content : raw[0].end]
            rest = data[field.content : raw[0].begin] + data[raw[0].end : field.end]
            parts += [view[at : field.begin], _message(INITIALIZER, rest)]
            at = field.end
    if not numbers:
        return data, {}
    own = b"".join([*parts, view[at : graph.end]])
    return data[: graph.begin] + _message(GRAPH, own) + data[graph.end :], numbers


def _message(number: int, content: bytes) -> bytes:
    """A field that is a message, text or bytes; `number` is below 16."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(128 | size & 127)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + content


def _fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of a message in bytes that `_check_parts` has read."""
    while at < end:
        begin = at
        tag, at = _read_varint(data, at, end)
        content, wire = at, tag & 7
        if wire == 0:
            _, at = _read_varint(data, at, end)
        elif wire == 2:
            size, content = _read_varint(data, at, end)
            at = content + size
        else:
            at += 8 if wire == 1 else 4
        yield Field(tag >> 3, wire, begin, content, at)


def _check_parts(data: bytes) -> None:
    """Raise ValueError if the parsed model would take far more memory than the file's bytes.

    This reads the tags of protobuf's fields (protobuf.dev/programming-guides/encoding) alone.
    """
    left, inner = MOST_PARTS + len(data), _inner_kinds(onnx.ModelProto.DESCRIPTOR, {})
    stack = [(0, len(data), onnx.ModelProto.DESCRIPTOR.full_name)]
    while stack:
        at, end, kind = stack.pop()
        while at < end:
            tag, at = _read_varint(data, at, end)
            wire = tag & 7
            if wire == 0:
                _, at = _read_varint(data, at, end)
                left -= NUMBER_BYTES
            elif wire == 2:
                size, at = _read_varint(data, at, end)
                part = inner[kind].get(tag >> 3)
                if part is not None:
                    stack.append((at, at + size, part))
                left -= TEXT_BYTES if part is None else PART_BYTES
                at += size
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                raise ValueError(f"expected fields of protobuf, got one of the kind {wire}")
            if at > end:
                raise ValueError("a field goes beyond the end")
            if left < 0:
                raise ValueError("expected fewer parts in a file of this size")


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place after it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number goes beyond the end")


def _inner_kinds(kind: Any, known: dict[str, dict[int, str]]) -> dict[str, dict[int, str]]:
    """For each kind of message, the kinds of those in it, by their fields' numbers."""
    if kind.full_name not in known:
        inner = {field.number: field.message_type for field in kind.fields if field.message_type}
        known[kind.full_name] = {number: part.full_name for number, part in inner.items()}
        for part in inner.values():
            _inner_kinds(part, known)
    return known
