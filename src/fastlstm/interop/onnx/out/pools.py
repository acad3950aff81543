"""Rows of different lengths in an exported graph, and what takes one vector from their steps."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fastlstm.interop.onnx.out.writer import Writer
from fastlstm.layers.pool import Pool


class Lengths:
    """The input `lengths` of a graph, int32 (batch,), and which steps of x it keeps.

    Parameters
    ----------
    writer : Writer
    x : str
        The graph's input.
    batch_first : bool
        The layout of x.
    """

    def __init__(self, writer: Writer, x: str, batch_first: bool):
        self.writer, self.axis = writer, int(batch_first)
        self.name = writer.input("lengths", np.int32, ["batch"])
        node, integers = writer.node, writer.integers
        self._int64 = node("Cast", self.name, to=TensorProto.INT64)
        size = node("Squeeze", node("Shape", x, start=self.axis, end=self.axis + 1), integers(0))
        zero, one = (writer.constant(f"step {k}", np.array(k, np.int64)) for k in (0, 1))
        # Steps and lengths side by side, as x has them: [T, 1] and [1, B], or [1, T] and [B, 1].
        self._steps = node("Unsqueeze", node("Range", zero, size, one), integers(1 - self.axis))
        self._ends = node("Unsqueeze", self._int64, integers(self.axis))
        self.kept = node("Less", self._steps, self._ends)  # without features
        self._begun = node("Greater", self._int64, integers(0))  # rows with steps
        self._of_features = node("Unsqueeze", self.kept, integers(2))

    def filled(self, value: str, number: float, dtype: np.dtype) -> str:
        """A value whose padding has this number."""
        node = self.writer.node
        return node("Where", self._of_features, value, self.writer.number(number, dtype))

    def indices(self, value: str) -> str:
        """Indices whose padding is 0, an index that an Embedding has."""
        zero = self.writer.constant("no index", np.array(0, np.int64))
        return self.writer.node("Where", self.kept, value, zero)

    def last(self, value: str, dtype: np.dtype) -> str:
        """The value at the last step of each row."""
        node, integers = self.writer.node, self.writer.integers
        is_last = node("Equal", self._steps, node("Sub", self._ends, integers(1)))
        zeros = self.writer.number(0.0, dtype)
        last = node("Where", node("Unsqueeze", is_last, integers(2)), value, zeros)
        return self.writer.reduce("ReduceSum", last, self.axis)

    def divisors(self, dtype: np.dtype) -> str:
        """The number of steps of each row, (batch, 1); 1 where there are none."""
        node = self.writer.node
        counts = node("Cast", self.name, to=helper.np_dtype_to_tensor_dtype(dtype))
        most = node("Max", counts, self.writer.number(1.0, dtype))
        return node("Unsqueeze", most, self.writer.integers(1))

    def without_empty(self, value: str, dtype: np.dtype) -> str:
        """Vectors (batch, features), with zeros for rows of no steps."""
        has_steps = self.writer.node("Unsqueeze", self._begun, self.writer.integers(1))
        return self.writer.node("Where", has_steps, value, self.writer.number(0.0, dtype))

    def begun(self, end: str, start: str) -> str:
        """A final state (directions, batch, H): of rows of no steps, their first (unlike ONNX)."""
        has_steps = self.writer.node("Unsqueeze", self._begun, self.writer.integers(0, 2))
        return self.writer.node("Where", has_steps, end, start)


def add_pool(
    writer: Writer,
    pool: Pool,
    value: str,
    *,
    ends: str,
    axis: int,
    features: Any,
    dtype: np.dtype,
    lengths: Lengths | None,
) -> str:
    """Add the nodes of a `Pool` over an axis; returns the result, (batch, features).

    `ends` has the final h of the layer whose output `value` is, if it is one's as it is.
    """
    reverse = pool._reverse
    if pool.kind == "last" and ends and reverse == pool._before.reverse:
        result = _joined_ends(writer, ends, len(reverse))
    elif pool.kind == "last":
        result = _at_ends(writer, value, reverse, axis, features, dtype, lengths)
    elif lengths is None:
        result = writer.reduce({"mean": "ReduceMean", "max": "ReduceMax"}[pool.kind], value, axis)
    elif pool.kind == "mean":
        total = writer.reduce("ReduceSum", lengths.filled(value, 0.0, dtype), axis)
        result = writer.node("Div", total, lengths.divisors(dtype))
    else:
        result = writer.reduce("ReduceMax", lengths.filled(value, -np.inf, dtype), axis)
    return result if lengths is None else lengths.without_empty(result, dtype)


def _joined_ends(writer: Writer, Y_h: str, directions: int) -> str:
    """The final h (B, directions · H) of a node's Y_h (directions, B, H)."""
    node, integers = writer.node, writer.integers
    if directions == 1:
        return node("Squeeze", Y_h, integers(0))
    return node("Reshape", node("Transpose", Y_h, perm=[1, 0, 2]), integers(0, -1))


def _at_ends(
    writer: Writer,
    value: str,
    reverse: tuple[bool, ...],
    axis: int,
    features: Any,
    dtype: np.dtype,
    lengths: Lengths | None,
) -> str:
    """The steps at which directions end, side by side."""
    node, integers, ends = writer.node, writer.integers, []
    for k, is_reverse in enumerate(reverse):
        part = value
        if len(reverse) > 1:
            H = features // len(reverse)
            part = node("Slice", part, integers(k * H), integers((k + 1) * H), integers(2))
        if lengths is not None and not is_reverse:
            ends.append(lengths.last(part, dtype))
            continue
        step = writer.constant("step", np.array(0 if is_reverse else -1, np.int64))
        ends.append(node("Gather", part, step, axis=axis))
    return ends[0] if len(ends) == 1 else node("Concat", *ends, axis=-1)
