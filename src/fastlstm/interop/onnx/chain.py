"""A graph that is a chain of layers: its values, and the recurrent nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from fastlstm.interop.onnx.constants import NotConstantError, constant
from fastlstm.interop.onnx.graph import RECURRENT, File, attribute, is_standard, title
from fastlstm.interop.onnx.nodes import NoLayerError, layer_of, named_inputs, states_of_a_run
from fastlstm.module import Module, Output

# Axes: 0 and 1 are those of x, in its order; the others have these names.
FEATURES, DIRECTIONS, UNITS, ONE = "features", "directions", "units", "one"
FLOATS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


class OtherGraphError(Exception):
    """The graph is not a chain of layers; the message says where."""


@dataclass(frozen=True)
class Value:
    """What a name of the graph stands for: the result of modules, seen with these axes."""

    modules: tuple[Module, ...]
    axes: tuple[Any, ...]
    dtype: Any  # None for indices
    # Of a final state, the direction and the modules behind each entry of its axis of directions.
    parts: tuple[tuple[tuple[Module, ...], int], ...] = ()
    is_cast: bool = False  # whether a Cast gave it its dtype, as a layer with weights does itself


class Chain:
    """The main graph of a file, read from its output to its input.

    Parameters
    ----------
    file : File
    others : mapping of str to function
        For types of nodes that are not recurrent, what makes the `Value` of such a node.
    """

    def __init__(self, file: File, others: "Mapping[str, Callable[[Chain, Any], Value]]"):
        self.others = others
        self.file, self.scope, self.graph = file, file.main, file.main.graph
        self.known: dict[str, Value] = {}
        self.steps: int | None = None  # the axis of x that is time
        self.batch_first: bool | None = None
        self.recurrent: list[Any] = []  # the nodes
        self.data = ""  # the input that is x

    def modules(self) -> tuple[Module, ...]:
        result = self.value(self.graph.output[0].name)
        for output in self.graph.output[1:]:
            self._check_state_output(output.name)
        wanted: tuple[Any, ...] = (0, 1, FEATURES)
        if any(module.pools_steps for module in result.modules):
            wanted = (1 - (self.steps or 0), FEATURES)
        if result.axes != wanted or not result.modules or result.is_cast:
            raise OtherGraphError(
                f"the output {self.graph.output[0].name!r:.80} is not in the form of x: its axes "
                f"are {result.axes}, those of the layers {wanted}"
            )
        return result.modules

    def value(self, name: str) -> Value:
        if name not in self.known:
            _, source, place = self.scope.source(name)
            if source is None:
                self.known[name] = self._of_input(name)
            elif isinstance(source, onnx.NodeProto):
                self.known[name] = self._of_node(source, place)
            else:
                raise OtherGraphError(f"{name!r:.80} is a constant")
        return self.known[name]

    def _of_input(self, name: str) -> Value:
        part = next(part for part in self.graph.input if part.name == name)
        kind = part.type.tensor_type
        rank = len(kind.shape.dim) if kind.HasField("shape") else None
        if self.data and self.data != name:
            raise OtherGraphError(f"there are two inputs, {self.data!r:.80} and {name!r:.80}")
        self.data = name
        if kind.elem_type in INTEGERS and rank == 2:
            return Value((), (0, 1), None)
        if kind.elem_type in FLOATS and rank == 3:
            return Value((), (0, 1, FEATURES), np.dtype(FLOATS[kind.elem_type]))
        raise OtherGraphError(
            f"the input {name!r:.80} is not declared as float32 or float64 of three axes, or "
            "integers of two"
        )

    def _of_node(self, node: Any, place: int) -> Value:
        if is_standard(node):
            if node.op_type in RECURRENT:
                return self._of_recurrent(node, place)
            if node.op_type in self.others and place == 0:
                return self.others[node.op_type](self, node)
        raise self.other(node)

    def other(self, node: Any, why: str = "") -> OtherGraphError:
        kind = ".".join(filter(None, (node.domain, node.op_type)))
        reason = f": {why}" if why else " there"
        return OtherGraphError(f"{kind} {title(node)!r:.80} has no counterpart{reason}")

    def constant(self, node: Any, place: int) -> np.ndarray | None:
        """The constant input of a node; None if it is left out."""
        if place >= len(node.input) or not node.input[place]:
            return None
        try:
            return constant(self.scope, node.input[place])
        except NotConstantError as error:
            raise self.other(node, f"its input {place} is {error}") from error

    def integers(self, node: Any, attribute: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in early opsets and an input in later ones."""
        for part in node.attribute:
            if part.name == attribute:
                return [int(value) for value in part.ints]
        array = self.constant(node, place)
        if array is not None and (array.dtype.kind not in "iu" or array.ndim > 1):
            raise self.other(node, f"{attribute} is no list of whole numbers")
        return None if array is None else [int(value) for value in array.ravel()]

    # Nodes.

    def _of_recurrent(self, node: Any, place: int) -> Value:
        inputs = named_inputs(node, self.file.opset)
        x = self.value(inputs["X"])
        if len(x.axes) != 3 or x.axes[2] != FEATURES or x.dtype is None:
            raise self.other(node, f"its X has the axes {x.axes}")
        if "sequence_lens" in inputs:
            raise self.other(node, "it has sequence_lens")
        layout = attribute(node, "layout", 0)
        steps, batch = x.axes[:2] if not layout else x.axes[1::-1]
        if self.steps is None:
            self.steps, self.batch_first = steps, steps == 1
        if steps != self.steps:
            raise self.other(node, "it reads steps along another axis than the node before")
        try:
            layer = layer_of(self.scope, node, self.batch_first)
        except NoLayerError as error:
            raise self.other(node, str(error)) from error
        for name in states_of_a_run(self.scope, node):
            self._check_given(node, name)
        self.check_features(node, x, layer._form.inputs)
        if layer.dtype != x.dtype:
            raise self.other(node, f"its weights have another dtype than {x.dtype}")
        if node not in self.recurrent:
            self.recurrent.append(node)
        # One layer for all outputs of the node.
        modules = (*x.modules, layer)
        entries = tuple((modules, d) for d in range(len(layer.cells.reverse)))
        axes = (
            (batch, steps, DIRECTIONS, UNITS) if layout else (steps, DIRECTIONS, batch, UNITS),
            (batch, DIRECTIONS, UNITS) if layout else (DIRECTIONS, batch, UNITS),
        )
        values = (
            Value(modules, axes[0], layer.dtype),
            Value(modules, axes[1], layer.dtype, entries),
        )
        for name, value in zip(node.output, values, strict=False):
            if name:
                self.known[name] = value
        if place > 1:
            raise self.other(node, "its cell state is used as data")
        return values[place]

    def _check_given(self, node: Any, name: str) -> None:
        """Raise unless an initial state is chosen from an input of the model."""
        _, source, _ = self.scope.source(name)
        while isinstance(source, onnx.NodeProto):
            if not is_standard(source) or source.op_type not in ("Expand", "Identity", "Slice"):
                raise self.other(node, f"its initial state comes from {source.op_type}")
            name = source.input[0]
            _, source, _ = self.scope.source(name)
        if source is None and name == self.data:
            raise self.other(node, "its initial state comes from x")

    def _check_state_output(self, name: str) -> None:
        """Raise unless an output is a final state, which a model returns beside its result."""
        _, source, place = self.scope.source(name)
        if not isinstance(source, onnx.NodeProto) or not is_standard(source):
            raise OtherGraphError(f"there is another output, {name!r:.80}")
        if source.op_type in RECURRENT:
            if place == 0 or source not in self.recurrent:
                raise OtherGraphError(f"there is another output, {name!r:.80}")
        elif source.op_type == "Identity" or (
            source.op_type == "Concat" and attribute(source, "axis", 0) == 0
        ):
            for part in source.input:
                self._check_state_output(part)
        else:
            raise OtherGraphError(f"there is another output, {name!r:.80}")

    def check_features(self, node: Any, x: Value, wanted: int) -> None:
        features = output_of(x.modules).features
        if features is not None and features != wanted:
            raise ValueError(
                f"{node.op_type} {title(node)!r:.80}: expected {features} features, got {wanted}"
            )

    def whole(self, node: Any, place: int = 0) -> Value:
        """The value of an input, whose last axis must be that of features."""
        return self.checked(node, self.value(node.input[place]))

    def checked(self, node: Any, x: Value) -> Value:
        """`x`, whose last axis must be that of features, and whose dtype its last layer's."""
        if x.is_cast and node.op_type not in ("Gemm", "MatMul"):
            raise self.other(node, "its input has another dtype than the layer before gives")
        if x.axes[-1] != FEATURES and x.dtype is not None:
            raise self.other(node, f"its input has the axes {x.axes}")
        return x


def output_of(modules: tuple[Module, ...]) -> Output:
    """What is known of the result of modules one after another."""
    before = Output()
    for module in modules:
        before = module._output(before)
    return before


def without(axes: tuple[Any, ...], gone: set[int]) -> tuple[Any, ...]:
    return tuple(axis for k, axis in enumerate(axes) if k not in gone)
