"""ONNX files: what is constant in them, evaluated within bounds.

Exporters often compute the weights of a recurrent node from a framework's own, by Slice, Concat
and the like. These nodes are evaluated one by one, by `onnx.reference`, after the size of their
result was bounded.
"""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from fastlstm.interop.reading import DAMAGE, reading

OLDEST = 7  # opset; in earlier ones LSTM, GRU and RNN have other attributes
RECURRENT = ("LSTM", "GRU", "RNN")
MOST_NODES = 200_000
MOST_EVALUATIONS = 50_000  # of nodes of a file
MOST_TIMES, MARGIN = 2, 40 << 20  # memory of one evaluation: times the file's size, plus bytes
MOST_WORK = 8  # bytes of all evaluations together, in units of the memory that one may take
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


class File:
    """A model, with its main graph as a `Scope`.

    Parameters
    ----------
    model : str, path or onnx.ModelProto
        A file is parsed by the onnx package. Nothing outside of it is read.
    """

    def __init__(self, model: Any):
        if isinstance(model, onnx.ModelProto):
            self.name, self.model = "model", model
            self.size = model.ByteSize()
        elif isinstance(model, (str, os.PathLike)):
            self.name = os.fspath(model)
            with open(model, "rb") as file:
                data = file.read()
            self.size, self.model = len(data), _parse(self.name, data)
        else:
            raise TypeError(f"model: expected a path or a ModelProto, got {type(model).__name__}")
        opsets = {entry.domain or "ai.onnx": entry.version for entry in self.model.opset_import}
        self.opset = opsets.get("ai.onnx", 0)
        newest = onnx.defs.onnx_opset_version()
        if not OLDEST <= self.opset <= newest:
            raise ValueError(
                f"{self.name}: expected an opset from {OLDEST} to {newest}, the newest that the "
                f"installed onnx package knows, got {self.opset}"
            )
        self.nodes_left, self.evaluations_left = MOST_NODES, MOST_EVALUATIONS
        self.most_memory = MOST_TIMES * self.size + MARGIN
        self.work_left = MOST_WORK * self.most_memory
        self.main = Scope(self, self.model.graph, None)
        with reading(self.name, "the graph"):
            for scope in self.main.scopes():
                scope.check()
        for tensor in self.main.all_tensors():
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where = {entry.key: entry.value for entry in tensor.external_data}
                raise ValueError(
                    f"{self.name}: tensor {tensor.name!r:.80}: expected its numbers in the file, "
                    f"got external data in {where.get('location')!r:.80}; write one file by "
                    "onnx.save(onnx.load(path), path)"
                )


def _parse(name: str, data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # which onnx depends on

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError(f"{name}: expected an ONNX model: {error!s:.200}") from error


def is_standard(node: Any) -> bool:
    """Whether the node is one of ONNX's own operators."""
    return node.domain in ("", "ai.onnx")


def title(node: Any) -> str:
    """How a node is called: its name, or its first output's."""
    return str(node.name or next(filter(None, node.output), node.op_type))


def inner_graphs(node: Any) -> Iterator[Any]:
    """The graphs within a node: branches and bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


class Scope:
    """The names that a graph's nodes can use: its own, and those of the graphs around it.

    Parameters
    ----------
    file : File
    graph : onnx.GraphProto
    outer : Scope or None
    """

    def __init__(self, file: File, graph: Any, outer: "Scope | None"):
        self.file, self.graph, self.outer = file, graph, outer
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = {
            output: (node, place)
            for node in graph.node
            for place, output in enumerate(node.output)
            if output
        }
        self.inputs = {part.name for part in graph.input}

    def check(self) -> None:
        """Raise ValueError unless each name of this graph is defined once, and before its uses."""
        self.file.nodes_left -= len(self.graph.node)
        if self.file.nodes_left < 0:
            raise ValueError(f"expected at most {MOST_NODES} nodes")
        defined = {*self.tensors, *self.inputs}
        for node in self.graph.node:
            for name in node.input:
                if name in self.nodes and name not in defined:
                    raise ValueError(f"{name!r:.80}: expected it to be computed before its use")
            for name in filter(None, node.output):
                if name in defined:
                    raise ValueError(f"{name!r:.80}: expected one definition, got two")
                defined.add(name)

    def inner(self, node: Any) -> Iterator["Scope"]:
        """The graphs within a node: branches and bodies."""
        for graph in inner_graphs(node):
            yield Scope(self.file, graph, self)

    def walk(self) -> Iterator[tuple["Scope", Any]]:
        """All nodes, also of inner graphs, each with its graph."""
        for node in self.graph.node:
            yield self, node
            for scope in self.inner(node):
                yield from scope.walk()

    def scopes(self) -> Iterator["Scope"]:
        """This graph and all inner ones."""
        yield self
        for node in self.graph.node:
            for scope in self.inner(node):
                yield from scope.scopes()

    def all_tensors(self) -> Iterator[Any]:
        """The initializers, and the tensors that nodes have as attributes, of all graphs."""
        for scope in self.scopes():
            yield from scope.graph.initializer
            for node in scope.graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        yield attribute.t
                    yield from attribute.tensors

    def source(self, name: str) -> tuple["Scope", Any, int]:
        """Where a name comes from: the graph, and there a tensor, a node with the output's place,
        or None for an input. A tensor goes before an input, whose default it is."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.tensors:
                return scope, scope.tensors[name], 0
            if name in scope.nodes:
                return scope, *scope.nodes[name]
            if name in scope.inputs:
                return scope, None, 0
            scope = scope.outer
        raise ValueError(f"{name!r:.80}: expected a name that the graph has")

    def constant(self, name: str) -> np.ndarray:
        """Return the value of a name.

        Raises
        ------
        NotConstantError
            It has none before the model runs.
        ValueError
            Its computation is damaged, or takes too much memory for a file of this size.
        """
        return _Evaluation(self.file).value(self, name)


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
                array = self._of_tensor(source)
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

    def _of_tensor(self, tensor: Any) -> np.ndarray:
        if tensor.data_type not in NUMBERS:
            raise ValueError(f"tensor {tensor.name!r:.80}: expected numbers of 8 to 64 bits")
        if any(size < 0 for size in tensor.dims):
            raise ValueError(f"tensor {tensor.name!r:.80}: expected sizes, got {tensor.dims}")
        numbers = math.prod(tensor.dims)
        if numbers > self.file.size:
            raise ValueError(
                f"tensor {tensor.name!r:.80}: expected the {numbers} numbers of its shape"
            )
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        self._take(numbers, width)
        array = onnx.numpy_helper.to_array(tensor)
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
        for attribute in node.attribute:
            if attribute.name == "value":
                return self._of_tensor(attribute.t)
            if attribute.name in ("value_float", "value_floats"):
                return np.array(onnx.helper.get_attribute_value(attribute), np.float32)
            if attribute.name in ("value_int", "value_ints"):
                return np.array(onnx.helper.get_attribute_value(attribute), np.int64)
        raise NotConstantError(f"the text or sparse value of Constant {title(node)!r:.80}")


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(part.i) for part in node.attribute if part.name == name), default)


def _width(node: Any, arrays: list[np.ndarray]) -> int:
    """The bytes of a number of a node's result."""
    if node.op_type == "Cast":
        to = _attribute(node, "to", 0)
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
        return sum(sizes) + 64  # the length of a Shape
    if kind in BROADCAST:
        return math.prod(_broadcast([array.shape for array in arrays]))
    if kind == "Gather":
        axes, axis = [*map(int, arrays[0].shape)], _attribute(node, "axis", 0)
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
