"""`read`: a file whose graph is a chain of this library's layers, as one Module."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from fastlstm.interop.onnx.graph import (
    RECURRENT,
    File,
    NotConstantError,
    is_standard,
    title,
)
from fastlstm.interop.onnx.nodes import (
    NoLayerError,
    as_written,
    layer_of,
    named_inputs,
    states_of_a_run,
)
from fastlstm.interop.reading import Hints, reading
from fastlstm.layers.activation import SELU_ALPHA, SELU_SCALE, Activation
from fastlstm.layers.activations import PARAMETERS
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.linear import Linear
from fastlstm.layers.pool import Last
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module, Output
from fastlstm.safetensors import Path

# Axes: 0 and 1 are those of x, in its order; the others have these names.
FEATURES, DIRECTIONS, UNITS, ONE = "features", "directions", "units", "one"
FLOATS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.DOUBLE: np.float64}
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
ACTIVATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Sigmoid": ("sigmoid", ()),
    "Tanh": ("tanh", ()),
    "Relu": ("relu", ()),
    "LeakyRelu": ("leaky_relu", ("alpha",)),
    "ThresholdedRelu": ("thresholded_relu", ("alpha",)),
    "HardSigmoid": ("hard_sigmoid", ("alpha", "beta")),
    "Elu": ("elu", ("alpha",)),
    "Softsign": ("softsign", ()),
    "Softplus": ("softplus", ()),
    "Exp": ("exponential", ()),
}


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


def read(path: Path, hints: Hints) -> Any:
    """Return the model of an ONNX file whose graph is a chain of layers.

    Raises
    ------
    ValueError
        The file is damaged, or its graph has something else.
    """
    file = File(path)
    with reading(path, "the graph"):
        try:
            modules = _Chain(file).modules()
        except OtherGraphError as error:
            raise ValueError(
                f"expected a chain of layers that fastlstm has, but {error}; "
                "fastlstm.interop.onnx.layers gives the recurrent layers of any graph, "
                "and interop.onnx.Backend runs it"
            ) from error
        return modules[0] if len(modules) == 1 else Sequential(*modules)


class _Chain:
    """The main graph, read from its output to its input."""

    def __init__(self, file: File):
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
        if result.axes != wanted or not result.modules:
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
        kind = node.op_type
        if is_standard(node):
            if kind in RECURRENT:
                return self._of_recurrent(node, place)
            if kind in ACTIVATIONS or kind in ("Softmax", "Selu", "Gelu"):
                return self._of_activation(node)
            if kind in OTHERS and place == 0:
                return OTHERS[kind](self, node)
        raise self._other(node)

    def _other(self, node: Any, why: str = "") -> OtherGraphError:
        kind = ".".join(filter(None, (node.domain, node.op_type)))
        reason = f": {why}" if why else " there"
        return OtherGraphError(f"{kind} {title(node)!r:.80} has no counterpart{reason}")

    def _constant(self, node: Any, place: int) -> np.ndarray | None:
        """The constant input of a node; None if it is left out."""
        if place >= len(node.input) or not node.input[place]:
            return None
        try:
            return self.scope.constant(node.input[place])
        except NotConstantError as error:
            raise self._other(node, f"its input {place} is {error}") from error

    def _integers(self, node: Any, attribute: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in early opsets and an input in later ones."""
        for part in node.attribute:
            if part.name == attribute:
                return [int(value) for value in part.ints]
        array = self._constant(node, place)
        if array is not None and (array.dtype.kind not in "iu" or array.ndim > 1):
            raise self._other(node, f"{attribute} is no list of whole numbers")
        return None if array is None else [int(value) for value in array.ravel()]

    # Nodes.

    def _of_recurrent(self, node: Any, place: int) -> Value:
        inputs = named_inputs(node, self.file.opset)
        x = self.value(inputs["X"])
        if len(x.axes) != 3 or x.axes[2] != FEATURES or x.dtype is None:
            raise self._other(node, f"its X has the axes {x.axes}")
        if "sequence_lens" in inputs:
            raise self._other(node, "it has sequence_lens")
        layout = _attribute(node, "layout", 0)
        steps, batch = x.axes[:2] if not layout else x.axes[1::-1]
        if self.steps is None:
            self.steps, self.batch_first = steps, steps == 1
        if steps != self.steps:
            raise self._other(node, "it reads steps along another axis than the node before")
        try:
            layer = layer_of(self.scope, node, self.batch_first)
        except NoLayerError as error:
            raise self._other(node, str(error)) from error
        for name in states_of_a_run(self.scope, node):
            self._check_given(node, name)
        self._check_features(node, x, layer._form.inputs)
        if layer.dtype != x.dtype:
            raise self._other(node, f"its weights have another dtype than {x.dtype}")
        if node not in self.recurrent:
            self.recurrent.append(node)
        # One layer for all outputs of the node.
        modules = (*x.modules, layer)
        entries = tuple((modules, d) for d in range(len(layer._reverse)))
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
            raise self._other(node, "its cell state is used as data")
        return values[place]

    def _check_given(self, node: Any, name: str) -> None:
        """Raise unless an initial state is chosen from an input of the model."""
        _, source, _ = self.scope.source(name)
        while isinstance(source, onnx.NodeProto):
            if not is_standard(source) or source.op_type not in ("Expand", "Identity", "Slice"):
                raise self._other(node, f"its initial state comes from {source.op_type}")
            name = source.input[0]
            _, source, _ = self.scope.source(name)
        if source is None and name == self.data:
            raise self._other(node, "its initial state comes from x")

    def _check_state_output(self, name: str) -> None:
        """Raise unless an output is a final state, which a model returns beside its result."""
        _, source, place = self.scope.source(name)
        if not isinstance(source, onnx.NodeProto) or not is_standard(source):
            raise OtherGraphError(f"there is another output, {name!r:.80}")
        if source.op_type in RECURRENT:
            if place == 0 or source not in self.recurrent:
                raise OtherGraphError(f"there is another output, {name!r:.80}")
        elif source.op_type == "Identity" or (
            source.op_type == "Concat" and _attribute(source, "axis", 0) == 0
        ):
            for part in source.input:
                self._check_state_output(part)
        else:
            raise OtherGraphError(f"there is another output, {name!r:.80}")

    def _check_features(self, node: Any, x: Value, wanted: int) -> None:
        features = _output(x.modules).features
        if features is not None and features != wanted:
            raise ValueError(
                f"{node.op_type} {title(node)!r:.80}: expected {features} features, got {wanted}"
            )

    def _of_activation(self, node: Any) -> Value:
        x, kind = self._whole(node), node.op_type
        if x.dtype is None:
            raise self._other(node, "its input holds indices")
        if kind == "Softmax":
            axis = _attribute(node, "axis", -1 if self.file.opset >= 13 else 1)
            if axis not in (-1, len(x.axes) - 1):
                raise self._other(node, f"it is over axis {axis} of {len(x.axes)}")
            layer = Activation("softmax")
        elif kind == "Selu":
            given = _attribute(node, "alpha", SELU_ALPHA), _attribute(node, "gamma", SELU_SCALE)
            if not np.allclose(given, (SELU_ALPHA, SELU_SCALE), rtol=1e-6):
                raise self._other(node, f"its alpha and gamma are {given}")
            layer = Activation("selu")
        elif kind == "Gelu":
            is_tanh = _attribute(node, "approximate", b"none") == b"tanh"
            layer = Activation("gelu_tanh" if is_tanh else "gelu")
        else:
            name, parameters = ACTIVATIONS[kind]
            defaults = dict(zip(("alpha", "beta"), PARAMETERS.get(name, ()), strict=False))
            numbers = [_attribute(node, key, defaults[key]) for key in parameters]
            if x.dtype == np.float32:
                numbers = as_written(numbers)
            layer = Activation(name, *numbers)
        return replace(x, modules=(*x.modules, layer))

    def _whole(self, node: Any, place: int = 0) -> Value:
        """The value of an input, whose last axis must be that of features."""
        x = self.value(node.input[place])
        if x.axes[-1] != FEATURES and x.dtype is not None:
            raise self._other(node, f"its input has the axes {x.axes}")
        return x

    def _same(self, node: Any) -> Value:
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            training = self._constant(node, 2)
            if training is None or training.any():
                raise self._other(node, "it is in training")
        return self.value(node.input[0])

    def _cast(self, node: Any) -> Value:
        x, to = self.value(node.input[0]), _attribute(node, "to", 0)
        if to in INTEGERS if x.dtype is None else FLOATS.get(to) == x.dtype:
            return x
        raise self._other(node, "it changes the dtype")

    def _transpose(self, node: Any) -> Value:
        x = self.value(node.input[0])
        perm = self._integers(node, "perm", 1)
        perm = list(range(len(x.axes)))[::-1] if perm is None else perm
        if sorted(perm) != list(range(len(x.axes))):
            raise ValueError(f"Transpose {title(node)!r:.80}: expected {len(x.axes)} axes")
        return replace(x, axes=tuple(x.axes[axis] for axis in perm))

    def _squeeze(self, node: Any) -> Value:
        x = self.value(node.input[0])
        axes = self._integers(node, "axes", 1)
        rank = len(x.axes)
        if axes is None or not all(-rank <= axis < rank for axis in axes):
            raise self._other(node, f"its axes are {axes}")
        gone = {axis % rank for axis in axes}
        for axis in gone:
            self._check_single(node, x, x.axes[axis])
        return self._joined(replace(x, axes=_without(x.axes, gone)))

    def _check_single(self, node: Any, x: Value, axis: Any) -> None:
        """Raise unless an axis has the size 1."""
        if axis == ONE:
            return
        count = len(x.parts) if x.parts else len(_output(x.modules).reverse)
        if axis != DIRECTIONS or count != 1:
            raise self._other(node, f"the axis {axis} is not known to be 1")

    def _joined(self, x: Value) -> Value:
        """`x` without an axis of directions; a final state as the end of its sequence."""
        if DIRECTIONS in x.axes or UNITS not in x.axes:
            return x
        axes = tuple(FEATURES if axis == UNITS else axis for axis in x.axes)
        if not x.parts:
            return replace(x, axes=axes)
        modules = x.parts[0][0]
        directions = len(_output(modules).reverse)
        if x.parts != tuple((modules, d) for d in range(directions)):
            return replace(x, axes=x.axes)  # one of two directions
        return Value((*modules, Last()), axes, x.dtype)

    def _reshape(self, node: Any) -> Value:
        x, shape = self.value(node.input[0]), self._sizes(node, node.input[1])
        kept = [self._size(node, x, axis) for axis in x.axes[:-2]]
        joins = (
            x.axes[-2:] == (DIRECTIONS, UNITS)
            and len(shape) == len(kept) + 1
            and all(size in (0, own) for size, own in zip(shape, kept, strict=False))
            and shape[-1] in (-1, self._size(node, x, FEATURES))
        )
        if not joins or _attribute(node, "allowzero", 0):
            raise self._other(node, f"it makes {shape} of the axes {x.axes}")
        return self._joined(replace(x, axes=(*x.axes[:-2], UNITS)))

    def _size(self, node: Any, x: Value, axis: Any) -> Any:
        """The size of an axis: a number, or its name where it is known in a run only."""
        if axis in (0, 1):
            part = next(part for part in self.graph.input if part.name == self.data)
            return part.type.tensor_type.shape.dim[axis].dim_value or f"axis {axis}"
        out = _output(x.modules)
        if axis == ONE or out.features is None:
            return 1 if axis == ONE else str(axis)
        directions = len(x.parts) if x.parts else len(out.reverse)
        if axis == DIRECTIONS:
            return directions
        return out.features // len(out.reverse) if axis == UNITS else out.features

    def _sizes(self, node: Any, name: str) -> list[Any]:
        """A list of sizes, in part taken from the shapes of values."""
        try:
            array = self.scope.constant(name)
        except NotConstantError:
            pass
        else:
            return [int(size) for size in array.ravel()]
        _, source, _ = self.scope.source(name)
        kind = source.op_type if isinstance(source, onnx.NodeProto) else ""
        if kind == "Shape":
            x = self.value(source.input[0])
            begin, end = _attribute(source, "start", 0), _attribute(source, "end", None)
            return [self._size(node, x, axis) for axis in x.axes[begin:end]]
        if kind in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            return self._sizes(node, source.input[0])
        if kind == "Concat":
            return [size for part in source.input for size in self._sizes(node, part)]
        if kind in ("Gather", "Mul", "Slice"):
            sizes = self._sizes(node, source.input[0])
            others = [self._sizes(node, part) for part in source.input[1:]]
            if kind == "Gather":
                return [sizes[place] for place in others[0]]
            if kind == "Slice" and others[2:] in ([], [[0]], [[0], [1]]):
                return sizes[others[0][0] : others[1][0]]
            if kind == "Mul" and all(type(size) is int for size in (*sizes, *others[0])):
                return [a * b for a, b in zip(sizes, others[0], strict=True)]
        raise self._other(node, f"its shape {name!r:.80} is none of this model's sizes")

    def _gather(self, node: Any) -> Value:
        axis = _attribute(node, "axis", 0)
        try:
            table = self.scope.constant(node.input[0])
        except NotConstantError:
            table = None
        if table is not None:
            return self._embedding(node, table, axis)
        x, index = self.value(node.input[0]), self._constant(node, 1)
        if index is None or index.ndim or index.dtype.kind not in "iu":
            raise self._other(node, "its indices are no single number")
        if not -len(x.axes) <= axis < len(x.axes):
            raise ValueError(f"Gather {title(node)!r:.80}: expected an axis of {len(x.axes)}")
        axis %= len(x.axes)
        if x.axes[axis] == DIRECTIONS and x.parts:
            if not -len(x.parts) <= index < len(x.parts):
                raise ValueError(f"Gather {title(node)!r:.80}: no entry {index} of {len(x.parts)}")
            parts = (x.parts[int(index)],)
            modules = parts[0][0]
            return self._joined(Value(modules, _without(x.axes, {axis}), x.dtype, parts))
        return self._end(node, x, axis, int(index), ())

    def _end(self, node: Any, x: Value, axis: int, index: int, left: tuple[Any, ...]) -> Value:
        """The value at the last step that the layer computed."""
        reverse = _output(x.modules).reverse
        is_end = reverse in ((False,), (True,)) and index == (0 if reverse[0] else -1)
        if x.axes[-1] != FEATURES or x.axes[axis] != self.steps or self.steps is None or not is_end:
            raise self._other(node, f"it takes number {index} of the axis {x.axes[axis]}")
        axes = (*x.axes[:axis], *left, *x.axes[axis + 1 :])
        return Value((*x.modules, Last(batch_first=self.batch_first)), axes, x.dtype)

    def _slice(self, node: Any) -> Value:
        x = self.value(node.input[0])
        starts, ends = self._integers(node, "starts", 1), self._integers(node, "ends", 2)
        axes, steps = self._integers(node, "axes", 3), self._integers(node, "steps", 4)
        rank, is_end = len(x.axes), False
        if starts and ends and len(starts) == len(ends) == 1 and steps in (None, [1]):
            is_end = (starts[0] == -1 and ends[0] >= LONGEST) or (starts[0], ends[0]) == (0, 1)
        if (
            not is_end
            or starts is None
            or axes is None
            or len(axes) != 1
            or not -rank <= axes[0] < rank
        ):
            raise self._other(node, f"it takes {starts} to {ends} of the axes {axes}")
        return self._end(node, x, axes[0] % rank, starts[0], (ONE,))

    def _concat(self, node: Any) -> Value:
        values = [self.value(name) for name in node.input]
        first, axis = values[0], _attribute(node, "axis", 0)
        if not all(value.parts and value.axes == first.axes for value in values):
            raise self._other(node)
        parts = tuple(part for value in values for part in value.parts)
        axis %= len(first.axes)
        joined = replace(first, parts=parts)
        if first.axes[axis] == DIRECTIONS:
            return joined
        if first.axes[axis] == UNITS and DIRECTIONS not in first.axes:
            return self._joined(joined)
        raise self._other(node)

    def _embedding(self, node: Any, table: np.ndarray, axis: int) -> Value:
        x = self.value(node.input[1])
        if x.dtype is not None or axis or table.ndim != 2 or table.dtype.kind != "f":
            raise self._other(node, "it is no look-up of vectors by the model's input")
        dtype = _dtype(self, node, table)
        module = Embedding(*table.shape, weight=table, dtype=dtype)
        return Value((*x.modules, module), (*x.axes, FEATURES), dtype)

    def _matmul(self, node: Any) -> Value:
        x, weight = self._whole(node), self._constant(node, 1)
        if weight is None:
            raise self._other(node)
        return self._linear(node, x, weight, None)

    def _gemm(self, node: Any) -> Value:
        x, weight, bias = self._whole(node), self._constant(node, 1), self._constant(node, 2)
        plain = (
            _attribute(node, "alpha", 1.0) == 1
            and (bias is None or _attribute(node, "beta", 1.0) == 1)
            and not _attribute(node, "transA", 0)
        )
        if not plain or weight is None or weight.ndim != 2:
            raise self._other(node)
        return self._linear(node, x, weight.T if _attribute(node, "transB", 0) else weight, bias)

    def _linear(self, node: Any, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Value:
        if weight.ndim != 2 or not weight.size or x.dtype is None:
            raise self._other(node, f"its weight has the shape {weight.shape}")
        self._check_features(node, x, len(weight))
        dtype = _dtype(self, node, weight)
        inputs, outputs = weight.shape
        module = Linear(inputs, outputs, bias is not None, dtype=dtype, rng=0)
        arrays = {"weight": np.array(weight.T, order="C")}
        if bias is not None:
            arrays["bias"] = self._bias(node, bias, weight.shape[1])
        module.assign(arrays)
        return replace(x, modules=(*x.modules, module), dtype=dtype)

    def _bias(self, node: Any, bias: np.ndarray, features: int) -> np.ndarray:
        if bias.size != features or bias.shape[-1:] != (features,):
            raise self._other(node, f"it adds an array of shape {bias.shape}")
        return np.array(bias.reshape(features), order="C")

    def _add(self, node: Any) -> Value:
        place = int(self._is_constant(node.input[0]))
        x, bias = self._whole(node, place), self._constant(node, 1 - place)
        last = x.modules[-1] if x.modules else None
        if (
            not isinstance(last, Linear)
            or last.bias is not None
            or bias is None
            or bias.ndim > len(x.axes)
        ):
            raise self._other(node)
        weight = last.weight
        return self._linear(node, replace(x, modules=x.modules[:-1]), weight.T, bias)

    def _is_constant(self, name: str) -> bool:
        try:
            self.scope.constant(name)
        except NotConstantError:
            return False
        return True


LONGEST = 2**31 - 1  # what exporters write for the end of an axis, or more
OTHERS: dict[str, Callable[[_Chain, Any], Value]] = {
    "Add": _Chain._add,
    "Cast": _Chain._cast,
    "Concat": _Chain._concat,
    "Dropout": _Chain._same,
    "Gather": _Chain._gather,
    "Gemm": _Chain._gemm,
    "Identity": _Chain._same,
    "MatMul": _Chain._matmul,
    "Reshape": _Chain._reshape,
    "Slice": _Chain._slice,
    "Squeeze": _Chain._squeeze,
    "Transpose": _Chain._transpose,
}


def _output(modules: tuple[Module, ...]) -> Output:
    """What is known of the result of modules one after another."""
    before = Output()
    for module in modules:
        before = module._output(before)
    return before


def _dtype(chain: _Chain, node: Any, array: np.ndarray) -> np.dtype:
    if array.dtype not in (np.float32, np.float64):
        raise chain._other(node, f"its weights have dtype {array.dtype}")
    return array.dtype


def _without(axes: tuple[Any, ...], gone: set[int]) -> tuple[Any, ...]:
    return tuple(axis for k, axis in enumerate(axes) if k not in gone)


def _attribute(node: Any, name: str, default: Any) -> Any:
    for part in node.attribute:
        if part.name == name:
            return onnx.helper.get_attribute_value(part)
    return default
