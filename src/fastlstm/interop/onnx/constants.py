"""What is constant in a graph, evaluated within bounds.

Exporters often compute the weights of a recurrent node from a framework's own, by Slice, Concat
and the like. These nodes are evaluated one by one, by `onnx.reference`, after the size of their
result was bounded.
"""

import math
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from fastlstm.interop.onnx.graph import (
    MOST_EVALUATIONS,
    File,
    Scope,
    attribute,
    inner_graphs,
    is_standard,
    title,
)
from fastlstm.interop.reading import DAMAGE

WIDEST = 8  # bytes of a number
NUMBERS = frozenset(
    getattr(onnx.TensorProto, name)
    for name in (
        *("FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16"),
        *("DOUBLE", "UINT32", "UINT64", "BFLOAT16"),
    )
)
# Nodes whose result has at most the numbers of their inputs together.
SMALL = frozenset(
    (
        *("Abs", "Cast", "Concat", "Flatten", "Identity", "Neg", "Reshape", "Shape", "Size"),
        *("Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    )
)
BROADCAST = frozenset(("Add", "Div", "Equal", "Mul", "Not", "Sub", "Where"))
FOLDED = SMALL | BROADCAST | {"Constant", "ConstantOfShape", "Expand", "Gather", "Tile"}


class NotConstantError(Exception):
    """A value depends on an input, or on a node that is not evaluated; the message says which."""


def constant(scope: Scope, name: str) -> np.ndarray:
    """Return the value of a name.

    Raises
    ------
    NotConstantError
        It has none before the model runs.
    ValueError
        Its computation is damaged, or takes too much memory for a file of this size.
    """
    return _Evaluation(scope.file).value(scope, name)


def known_constant(scope: Scope, name: str) -> np.ndarray | None:
    """The value of a name; None if it has none before the model runs."""
    try:
        return constant(scope, name)
    except NotConstantError:
        return None


def constant_names(graph: Any) -> frozenset[str]:
    """The names, also in inner graphs, that have the same value in every run."""
    constant: set[str] = set()
    varying: set[str] = set()
    _sort_names(graph, set(), constant, varying)
    return frozenset(constant - varying)  # graphs side by side may use a name twice


def _sort_names(graph: Any, around: set[str], constant: set[str], varying: set[str]) -> None:
    inputs = {part.name for part in graph.input}
    fixed = {tensor.name for tensor in graph.initializer} - inputs
    own = (around - inputs) | fixed
    constant |= fixed
    varying |= inputs
    for node in graph.node:
        outputs = {name for name in node.output if name}
        if is_folded(node) and all(name in own for name in node.input if name):
            own |= outputs
            constant |= outputs
        else:
            own -= outputs
            varying |= outputs
        for inner in inner_graphs(node):
            _sort_names(inner, own, constant, varying)


def is_folded(node: Any) -> bool:
    return is_standard(node) and node.op_type in FOLDED


class _Evaluation:
    """The evaluation of one value, within the memory that its file allows."""

    def __init__(self, file: File):
        self.file = file
        self.left = file.most_memory
        self.known: dict[tuple[int, str], np.ndarray] = {}

    def value(self, scope: Scope, name: str) -> np.ndarray:
        scope, source, place = scope.source(name)
        key = id(scope), name
        if key not in self.known:
            if source is None:
                raise NotConstantError(f"the input {name!r:.80}")
            if isinstance(source, onnx.NodeProto):
                array = self._of_node(scope, source, place)
            else:
                array = self._of_tensor(source, scope.numbers.get(name))
            self.known[key] = array
        return self.known[key]

    def _take(self, numbers: int, width: int) -> None:
        """Count the memory of a result before there is one."""
        self.left -= numbers * width
        self.file.work_left -= numbers * width
        if self.left < 0 or self.file.work_left < 0:
            raise ValueError(
                f"expected constants within {self.file.most_memory} bytes, "
                f"got a result of {numbers} numbers"
            )

    def _of_tensor(self, tensor: Any, apart: memoryview | None = None) -> np.ndarray:
        """The array of a tensor; `apart` are its bytes if it has none itself."""
        if tensor.data_type not in NUMBERS:
            raise ValueError(f"tensor {tensor.name!r:.80}: expected numbers of 8 to 64 bits")
        if any(size < 0 for size in tensor.dims):
            raise ValueError(f"tensor {tensor.name!r:.80}: expected sizes, got {tensor.dims}")
        numbers = math.prod(tensor.dims)
        if numbers > self.file.size:
            raise ValueError(
                f"tensor {tensor.name!r:.80}: expected the {numbers} numbers of its shape"
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if apart is None:
            self._take(numbers, dtype.itemsize)
            array = onnx.numpy_helper.to_array(tensor)
        else:
            if len(apart) != numbers * dtype.itemsize:
                raise ValueError(
                    f"tensor {tensor.name!r:.80}: expected the {numbers} numbers of its shape, "
                    f"got {len(apart)} bytes"
                )
            array = np.frombuffer(apart, dtype.newbyteorder("<")).reshape(tensor.dims)
        if array.dtype.kind not in "fiub":  # bfloat16, which NumPy does not have
            array = array.astype(np.float32)
        return array

    def _of_node(self, scope: Scope, node: Any, place: int) -> np.ndarray:
        if not is_folded(node):
            raise NotConstantError(f"the result of {node.op_type} {title(node)!r:.80}")
        self.file.evaluations_left -= 1
        if self.file.evaluations_left < 0:
            raise ValueError(f"expected at most {MOST_EVALUATIONS} nodes before the weights")
        if node.op_type == "Constant":
            return self._of_constant(node)
        inputs = {name: self.value(scope, name) for name in node.input if name}
        arrays = [inputs[name] for name in node.input if name]
        numbers, width = _most_numbers(node, arrays), _width(node, arrays)
        self._take(numbers, width)
        graph = onnx.GraphProto(name="node")
        graph.node.add().CopyFrom(node)
        try:
            evaluator = ReferenceEvaluator(graph, opsets={"": self.file.opset})
            (result,) = evaluator.run([node.output[place]], inputs)
        except DAMAGE as error:
            text = f"{node.op_type} {title(node)!r:.80}: {error!s:.200}"
            raise ValueError(text) from error
        result = np.asarray(result)
        if any(np.may_share_memory(result, array) for array in arrays):
            self.left += numbers * width
        return result if result.dtype.kind in "fiub" else result.astype(np.float32)

    def _of_constant(self, node: Any) -> np.ndarray:
        for part in node.attribute:
            if part.name == "value":
                return self._of_tensor(part.t)
            if part.name in ("value_float", "value_floats"):
                return np.array(onnx.helper.get_attribute_value(part), np.float32)
            if part.name in ("value_int", "value_ints"):
                return np.array(onnx.helper.get_attribute_value(part), np.int64)
        raise NotConstantError(f"the text or sparse value of Constant {title(node)!r:.80}")


def _width(node: Any, arrays: list[np.ndarray]) -> int:
    """The bytes of a number of a node's result."""
    if node.op_type == "Cast":
        to = attribute(node, "to", 0)
        if to not in NUMBERS:
            raise ValueError(f"Cast {title(node)!r:.80}: expected numbers of 8 to 64 bits")
        return int(onnx.helper.tensor_dtype_to_np_dtype(to).itemsize)
    if node.op_type in ("ConstantOfShape", "Shape", "Size"):
        return WIDEST
    return max(int(array.itemsize) for array in arrays)


def _most_numbers(node: Any, arrays: list[np.ndarray]) -> int:
    """How many numbers a node's result can have, from its inputs alone."""
    if not arrays:
        raise ValueError(f"{node.op_type} {title(node)!r:.80}: expected inputs, got none")
    kind, sizes = node.op_type, [array.size for array in arrays]
    if kind in SMALL:
        return sum(sizes) + 64  # a Shape has up to 64 numbers, whatever the size of its input
    if kind in BROADCAST:
        return math.prod(_broadcast([array.shape for array in arrays]))
    if kind == "Gather":
        axes, axis = [*map(int, arrays[0].shape)], int(attribute(node, "axis", 0))
        if not -len(axes) <= axis < len(axes):
            raise ValueError(f"Gather {title(node)!r:.80}: expected an axis of {axes}, got {axis}")
        del axes[axis]
        return math.prod(axes) * arrays[-1].size
    shape = [int(size) for size in arrays[-1].ravel()[:65]]
    if any(size < 0 for size in shape):
        raise ValueError(f"{kind} {title(node)!r:.80}: expected sizes, got {shape}")
    if kind == "ConstantOfShape":
        return math.prod(shape)
    if kind == "Tile":
        return sizes[0] * math.prod(shape)
    return math.prod(_broadcast([arrays[0].shape, tuple(shape)]))  # Expand


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that arrays have together, at least in its number of numbers."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))
