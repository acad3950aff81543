"""ONNX files: their graphs, one within another, and where a name in them comes from."""

import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from fastlstm.interop.onnx.wire import MOST_PARTS, Numbers, parse
from fastlstm.interop.reading import most_memory, reading

OLDEST = 7  # opset; in earlier ones LSTM, GRU and RNN have other attributes
RECURRENT = ("LSTM", "GRU", "RNN")
MOST_NODES, MOST_LAYERS = 200_000, 2000
MOST_EVALUATIONS = 50_000  # of nodes of a file
MOST_WORK = 8  # bytes of all evaluations together, in units of the memory that one may take


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
            self.size, numbers = model.ByteSize(), dict[int, memoryview]()
        elif isinstance(model, (str, os.PathLike)):
            self.name = os.fspath(model)
            self.size, self.model, numbers = _read(self.name)
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
        self.layers_left = MOST_LAYERS
        # Bytes that one evaluation may take. The file and its parsed model take the rest.
        self.most_memory = most_memory(self.size) - self.size - MOST_PARTS
        self.work_left = MOST_WORK * self.most_memory
        self.layers_memory_left = self.most_memory
        # A circle of references would keep the memory until the collector runs.
        self.main = Scope(weakref.proxy(self), self.model.graph, None, numbers)
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

    def count_layer(self, *weights: np.ndarray) -> None:
        """Raise ValueError if layers of the same weights take far more memory than the file."""
        self.layers_left -= 1
        self.layers_memory_left -= sum(array.nbytes for array in weights)
        if self.layers_left < 0 or self.layers_memory_left < 0:
            raise ValueError(
                f"expected at most {MOST_LAYERS} layers and {self.most_memory} bytes of weights"
            )


def _read(name: str) -> tuple[int, Any, Numbers]:
    """The size of a file, its model, and its initializers' numbers that are not in the model."""
    with open(name, "rb") as file:
        data = file.read()
    return len(data), *parse(name, data)


def is_standard(node: Any) -> bool:
    """Whether the node is one of ONNX's own operators."""
    return node.domain in ("", "ai.onnx")


def title(node: Any) -> str:
    """How a node is called: its name, or its first output's."""
    return str(node.name or next(filter(None, node.output), node.op_type))


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute, or a default if it is left out."""
    for part in node.attribute:
        if part.name == name:
            return onnx.helper.get_attribute_value(part)
    return default


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
    numbers : dict of int to memoryview
        The bytes of initializers, by their places, that are not in `graph`.
    """

    def __init__(
        self, file: File, graph: Any, outer: "Scope | None", numbers: Numbers | None = None
    ):
        self.file, self.graph, self.outer = file, graph, outer
        self.numbers = {graph.initializer[k].name: part for k, part in (numbers or {}).items()}
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
