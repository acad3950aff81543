"""Nodes of a chain that view a value otherwise: axes moved, joined, or reduced to their end."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from fastlstm.interop.onnx.chain import (
    DIRECTIONS,
    FEATURES,
    FLOATS,
    INTEGERS,
    ONE,
    UNITS,
    Chain,
    Value,
    output_of,
    without,
)
from fastlstm.interop.onnx.constants import known_constant
from fastlstm.interop.onnx.graph import attribute, title
from fastlstm.layers.pool import Last, Pool

LONGEST = 2**31 - 1  # what exporters write for the end of an axis, or more


def same(chain: Chain, node: Any) -> Value:
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        training = chain.constant(node, 2)
        if training is None or training.any():
            raise chain.other(node, "it is in training")
    return chain.value(node.input[0])


def cast(chain: Chain, node: Any) -> Value:
    x, to = chain.value(node.input[0]), attribute(node, "to", 0)
    if to in INTEGERS if x.dtype is None else FLOATS.get(to) == x.dtype:
        return x
    if x.dtype is not None and x.axes[-1] == FEATURES and to in FLOATS:
        return replace(x, dtype=np.dtype(FLOATS[to]), is_cast=True)
    raise chain.other(node, "it changes the dtype")


def transpose(chain: Chain, node: Any) -> Value:
    x = chain.value(node.input[0])
    perm = chain.integers(node, "perm", 1)
    perm = list(range(len(x.axes)))[::-1] if perm is None else perm
    if sorted(perm) != list(range(len(x.axes))):
        raise ValueError(f"Transpose {title(node)!r:.80}: expected {len(x.axes)} axes")
    return replace(x, axes=tuple(x.axes[axis] for axis in perm))


def squeeze(chain: Chain, node: Any) -> Value:
    x = chain.value(node.input[0])
    axes = chain.integers(node, "axes", 1)
    rank = len(x.axes)
    if axes is None or not all(-rank <= axis < rank for axis in axes):
        raise chain.other(node, f"its axes are {axes}")
    gone = {axis % rank for axis in axes}
    for axis in gone:
        check_single(chain, node, x, x.axes[axis])
    return join(replace(x, axes=without(x.axes, gone)))


def check_single(chain: Chain, node: Any, x: Value, axis: Any) -> None:
    """Raise unless an axis has the size 1."""
    if axis == ONE:
        return
    count = len(x.parts) if x.parts else len(output_of(x.modules).reverse)
    if axis != DIRECTIONS or count != 1:
        raise chain.other(node, f"the axis {axis} is not known to be 1")


def join(x: Value) -> Value:
    """`x` without an axis of directions; a final state as the end of its sequence."""
    if DIRECTIONS in x.axes or UNITS not in x.axes:
        return x
    axes = tuple(FEATURES if axis == UNITS else axis for axis in x.axes)
    if not x.parts:
        return replace(x, axes=axes)
    modules = x.parts[0][0]
    directions = len(output_of(modules).reverse)
    if x.parts != tuple((modules, d) for d in range(directions)):
        return x  # one of two directions
    return Value((*modules, Last()), axes, x.dtype)


def reshape(chain: Chain, node: Any) -> Value:
    x, shape = chain.value(node.input[0]), sizes_of(chain, node, node.input[1])
    kept = [size_of(chain, x, axis) for axis in x.axes[:-2]]
    joins = (
        x.axes[-2:] == (DIRECTIONS, UNITS)
        and len(shape) == len(kept) + 1
        and all(size in (0, own) for size, own in zip(shape, kept, strict=False))
        and shape[-1] in (-1, size_of(chain, x, FEATURES))
    )
    if not joins or attribute(node, "allowzero", 0):
        raise chain.other(node, f"it makes {shape} of the axes {x.axes}")
    return join(replace(x, axes=(*x.axes[:-2], UNITS)))


def size_of(chain: Chain, x: Value, axis: Any) -> Any:
    """The size of an axis: a number, or its name where it is known in a run only."""
    if axis in (0, 1):
        part = next(part for part in chain.graph.input if part.name == chain.data)
        return part.type.tensor_type.shape.dim[axis].dim_value or f"axis {axis}"
    out = output_of(x.modules)
    if axis == ONE or out.features is None:
        return 1 if axis == ONE else str(axis)
    directions = len(x.parts) if x.parts else len(out.reverse)
    if axis == DIRECTIONS:
        return directions
    return out.features // len(out.reverse) if axis == UNITS else out.features


def sizes_of(chain: Chain, node: Any, name: str) -> list[Any]:
    """A list of sizes, in part taken from the shapes of values."""
    array = known_constant(chain.scope, name)
    if array is not None:
        return [int(size) for size in array.ravel()]
    _, source, _ = chain.scope.source(name)
    kind = source.op_type if isinstance(source, onnx.NodeProto) else ""
    if kind == "Shape":
        x = chain.value(source.input[0])
        begin, end = attribute(source, "start", 0), attribute(source, "end", None)
        return [size_of(chain, x, axis) for axis in x.axes[begin:end]]
    if kind in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        return sizes_of(chain, node, source.input[0])
    if kind == "Concat":
        return [size for part in source.input for size in sizes_of(chain, node, part)]
    if kind in ("Gather", "Mul", "Slice"):
        sizes = sizes_of(chain, node, source.input[0])
        others = [sizes_of(chain, node, part) for part in source.input[1:]]
        if kind == "Gather":
            return [sizes[place] for place in others[0]]
        if kind == "Slice" and others[2:] in ([], [[0]], [[0], [1]]):
            return sizes[others[0][0] : others[1][0]]
        if kind == "Mul" and all(type(size) is int for size in (*sizes, *others[0])):
            return [a * b for a, b in zip(sizes, others[0], strict=True)]
    raise chain.other(node, f"its shape {name!r:.80} is none of this model's sizes")


def gather(chain: Chain, node: Any) -> Value:
    axis = attribute(node, "axis", 0)
    x, index = chain.value(node.input[0]), chain.constant(node, 1)
    if index is None or index.ndim or index.dtype.kind not in "iu":
        raise chain.other(node, "its indices are no single number")
    if not -len(x.axes) <= axis < len(x.axes):
        raise ValueError(f"Gather {title(node)!r:.80}: expected an axis of {len(x.axes)}")
    axis %= len(x.axes)
    if x.axes[axis] == DIRECTIONS and x.parts:
        if not -len(x.parts) <= index < len(x.parts):
            raise ValueError(f"Gather {title(node)!r:.80}: no entry {index} of {len(x.parts)}")
        parts = (x.parts[int(index)],)
        modules = parts[0][0]
        return join(Value(modules, without(x.axes, {axis}), x.dtype, parts))
    return last_step(chain, node, x, axis, int(index), ())


def last_step(
    chain: Chain, node: Any, x: Value, axis: int, index: int, left: tuple[Any, ...]
) -> Value:
    """The value at the last step that the layer computed."""
    reverse = output_of(x.modules).reverse
    is_part = x.axes[-1] == UNITS and len(x.parts) == 1  # the features of one direction
    if is_part:
        reverse = (reverse[x.parts[0][1]],)
    is_end = reverse in ((False,), (True,)) and index == (0 if reverse[0] else -1)
    if x.axes[axis] != chain.steps or chain.steps is None or not is_end:
        raise chain.other(node, f"it takes number {index} of the axis {x.axes[axis]}")
    axes = (*x.axes[:axis], *left, *x.axes[axis + 1 :])
    if is_part and not left:
        return replace(x, axes=axes)
    x = chain.checked(node, x)
    return Value((*x.modules, Last(batch_first=chain.batch_first)), axes, x.dtype)


def pool(chain: Chain, node: Any) -> Value:
    """The mean or the maximum over steps."""
    x, axes = chain.whole(node), chain.integers(node, "axes", 1)
    rank = len(x.axes)
    if rank != 3 or not axes or len(axes) != 1 or not -rank <= axes[0] < rank - 1:
        raise chain.other(node, f"it is over the axes {axes} of {x.axes}")
    axis = axes[0] % rank
    if chain.steps is None and axis < 2:  # no layer before has said which axis has the steps
        chain.steps, chain.batch_first = x.axes[axis], x.axes[axis] == 1
    if x.axes[axis] != chain.steps or attribute(node, "keepdims", 1):
        raise chain.other(node, f"it is over the axis {x.axes[axis]}")
    kind = {"ReduceMean": "mean", "ReduceMax": "max"}[node.op_type]
    module = Pool(kind, batch_first=chain.batch_first)
    return Value((*x.modules, module), without(x.axes, {axis}), x.dtype)


def cut(chain: Chain, node: Any) -> Value:
    x = chain.value(node.input[0])
    starts, ends = chain.integers(node, "starts", 1), chain.integers(node, "ends", 2)
    axes, steps = chain.integers(node, "axes", 3), chain.integers(node, "steps", 4)
    rank, is_end = len(x.axes), False
    if axes == [rank - 1] and x.axes[-1] == FEATURES and steps in (None, [1]):
        return direction(chain, node, x, starts, ends)
    if starts and ends and len(starts) == len(ends) == 1 and steps in (None, [1]):
        is_end = (starts[0] == -1 and ends[0] >= LONGEST) or (starts[0], ends[0]) == (0, 1)
    if (
        not is_end
        or starts is None
        or axes is None
        or len(axes) != 1
        or not -rank <= axes[0] < rank
    ):
        raise chain.other(node, f"it takes {starts} to {ends} of the axes {axes}")
    return last_step(chain, node, x, axes[0] % rank, starts[0], (ONE,))


def direction(
    chain: Chain, node: Any, x: Value, starts: list[int] | None, ends: list[int] | None
) -> Value:
    """The features of one of two directions."""
    out = output_of(x.modules)
    if out.features is not None and len(out.reverse) == 2:
        H = out.features // 2
        for d in range(2):
            if (starts, ends) == ([d * H], [(d + 1) * H]):
                parts = ((chain.checked(node, x).modules, d),)
                return Value(x.modules, (*x.axes[:-1], UNITS), x.dtype, parts)
    raise chain.other(node, f"it takes the features {starts} to {ends}")


def concat(chain: Chain, node: Any) -> Value:
    values = [chain.value(name) for name in node.input]
    first, axis = values[0], attribute(node, "axis", 0)
    if not all(value.parts and value.axes == first.axes for value in values):
        raise chain.other(node)
    parts = tuple(part for value in values for part in value.parts)
    axis %= len(first.axes)
    joined = replace(first, parts=parts)
    if first.axes[axis] == DIRECTIONS:
        return joined
    if first.axes[axis] == UNITS and DIRECTIONS not in first.axes:
        return join(joined)
    raise chain.other(node)
