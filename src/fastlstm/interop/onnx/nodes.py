"""`layers`: the recurrent nodes of a file as layers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx

from fastlstm import onnx as operators
from fastlstm.engine.stack import Stack
from fastlstm.interop.arrays import read_layers
from fastlstm.interop.onnx.constants import NUMBERS, NotConstantError, constant, known_constant
from fastlstm.interop.onnx.graph import RECURRENT, File, Scope, is_standard, title
from fastlstm.interop.reading import Hints, reading
from fastlstm.interop.recurrent import make
from fastlstm.module import Module
from fastlstm.onnx.operator import Operator
from fastlstm.onnx.weights import SUFFIXES, to_layer

WEIGHTS = ("W", "R", "B", "P")


class _Checked:
    """Of an operator: it checks its weights, and has none."""

    def _own(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {}


CHECKED: dict[str, Any] = {
    kind: type(kind, (_Checked, getattr(operators, kind)), {}) for kind in RECURRENT
}


class Layers(dict[str, Module]):
    """The layers of a file, by the names of their nodes.

    Attributes
    ----------
    skipped : dict of str to str
        For each recurrent node that is no layer of its own, why. To ask for it by its name raises
        ValueError with the reason.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: dict[str, str] = {}

    def __missing__(self, name: Any) -> Any:
        if name in self.skipped:
            raise ValueError(self.skipped[name])
        raise KeyError(f"{name!r}: expected one of {[*self, *self.skipped]}")


class NoLayerError(Exception):
    """A node computes what no layer does; the message says what."""


def layers(model: Any) -> Layers:
    """Return the layer of every LSTM, GRU and RNN node, also in branches of If and bodies of loops.

    Weights that the file computes from constants, as exporters do, are computed here. A layer's
    calls have this library's form: x (T, B, I), or (B, T, I) where the node has layout 1, and
    outputs (T, B, directions · H), where ONNX has an axis of directions.

    Parameters
    ----------
    model : str, path or onnx.ModelProto

    Returns
    -------
    Layers
        A dict from the node's name (its first output's, if it has none; "name (2)" for a second
        node of that name) to an `LSTM`, `GRU` or `RNN`. A node that reads from the end alone, or
        whose directions differ in activations, is a `fastlstm.engine.Stack`. A constant initial
        state that is not zero is a parameter (`learn_initial_state`); one that the graph computes
        or is given, and `lengths` (sequence_lens), are arguments of the layer's call. Where a
        file has no such node, but arrays under torch's names, their layers by the names' prefixes:
        exporters take single cells apart.

    Raises
    ------
    ValueError
        The file is damaged, a node does not follow ONNX, data are in other files, or there is no
        recurrent layer.
    OSError
        It cannot be read.

    Notes
    -----
    A node whose weights are inputs of the model, or that has constant sequence_lens, or an initial
    state that is constant and not the same in every row, is skipped: see `Layers`.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastlstm as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     fl.interop.onnx.export(fl.LSTM(3, 5, bidirectional=True, rng=0), path)
    ...     found = fl.interop.onnx.layers(path)
    >>> found
    {'l0': LSTM(3, 5, bidirectional=True)}
    """
    file = File(model)
    found = Layers()
    kinds: set[str] = set()
    for name, scope, node in recurrent_nodes(file, kinds):
        with reading(file.name, f"{node.op_type} {name!r:.80}"):
            try:
                found[name] = layer_of(scope, node)
            except NoLayerError as error:
                found.skipped[name] = f"{file.name}: {node.op_type} {name!r:.80}: {error}"
    if not found and not found.skipped:
        _add_cells(file, found)
    if not found:
        for reason in found.skipped.values():
            raise ValueError(reason)
        _check_functions(file)
        raise ValueError(
            f"{file.name}: expected LSTM, GRU or RNN nodes, or arrays under torch's names, "
            f"got nodes {', '.join(sorted(kinds))!s:.300}"
        )
    return found


def recurrent_nodes(file: File, kinds: set[str]) -> Iterator[tuple[str, Scope, Any]]:
    """The recurrent nodes of a file, each with a name of its own; adds all types to `kinds`."""
    seen: dict[str, int] = {}
    for scope, node in file.main.walk():
        kinds.add(str(node.op_type))  # in a damaged file it may be bytes
        if not (is_standard(node) and node.op_type in RECURRENT):
            continue
        name = title(node)
        seen[name] = count = seen.get(name, 0) + 1
        yield (name if count == 1 else f"{name} ({count})"), scope, node


def named_inputs(node: Any, opset: int) -> dict[str, str]:
    """The names of the node's inputs, by the operator's names; without those left out."""
    formal = onnx.defs.get_schema(node.op_type, opset).inputs
    return {part.name: name for part, name in zip(formal, node.input, strict=False) if name}


def attributes_of(node: Any, opset: int) -> dict[str, Any]:
    """The node's attributes, as `fastlstm.onnx` takes them."""
    schema = onnx.defs.get_schema(node.op_type, opset)
    attributes = {}
    for given in node.attribute:
        value = onnx.helper.get_attribute_value(given)
        default = schema.attributes[given.name].default_value
        # The default of RNN has two activations, for both directions. A node of one direction
        # may have this default written out, so it is left out here.
        if not default.name or value != onnx.helper.get_attribute_value(default):
            attributes[given.name] = _as_text(value)
    return attributes


def _as_text(value: Any) -> Any:
    """An attribute's value, with strings in place of bytes."""
    if isinstance(value, bytes):
        return value.decode()
    return [_as_text(part) for part in value] if isinstance(value, list) else value


def layer_of(scope: Scope, node: Any, batch_first: bool | None = None) -> Any:
    """Return the layer of a recurrent node; if `batch_first` is None, in the node's layout.

    Raises
    ------
    NoLayerError
        There is none that computes this.
    ValueError, TypeError
        The node does not follow ONNX.
    """
    described = _describe(scope, node)
    if batch_first is not None:
        described.options["batch_first"] = batch_first
    if described.cells is None:
        return make(node.op_type, [described.arrays], keep=True, **described.options)
    return Stack(
        [described.cells],
        reverse=described.reverse,
        learn_initial_state="initial_h" in described.arrays[0],
        parameters={
            name + suffix: array
            for suffix, own in zip(SUFFIXES, described.arrays, strict=False)
            for name, array in own.items()
        },
        **described.options,
    )


class Description(NamedTuple):
    """A recurrent node in this library's form."""

    arrays: list[dict[str, np.ndarray]]  # by direction
    options: dict[str, Any]
    reverse: tuple[bool, ...]
    cells: tuple[Any, ...] | None  # of the directions, where no layer has both


def _describe(scope: Scope, node: Any) -> Description:
    inputs = named_inputs(node, scope.file.opset)
    weights, shown = {}, {}
    for name in WEIGHTS:
        if name in inputs:
            try:
                weights[name], dtype = _weight(scope, inputs[name])
            except NotConstantError as error:
                raise NoLayerError(f"{name}: expected a constant, got {error}") from None
            shown[name] = np.broadcast_to(np.zeros((), dtype), weights[name].shape)
    scope.file.count_layer(*shown.values())
    attributes = attributes_of(node, scope.file.opset)
    if any(array.dtype != np.float64 for array in shown.values()):
        for name in ("activation_alpha", "activation_beta", "clip"):
            if name in attributes:
                attributes[name] = shortest_decimal(attributes[name])
    operator = CHECKED[node.op_type](**shown, **attributes)
    lengths = inputs.get("sequence_lens")
    if lengths is not None and known_constant(scope, lengths) is not None:
        raise NoLayerError("sequence_lens: expected none or an input, got a constant")
    state = [_initial(scope, inputs.get(name, ""), name, operator) for name in operator.STATE]
    known = [part for part in state if part is not None]
    learned = any(part.any() for part in known)
    if learned and len(known) < len(state):
        raise NoLayerError("initial_h, initial_c: expected both constant or none, got one")
    cells = tuple(operator._cell(own, weights) for own in operator.activations)
    parameters: dict[str, np.ndarray] = {}
    while weights:  # each is free before the next is copied
        name, array = weights.popitem()
        parameters |= to_layer({name: array}, operator.gate_order, operator._computed_in)
    arrays = []
    for direction, cell in enumerate(cells):
        own = {name: parameters[name + SUFFIXES[direction]] for name in cell.shapes()}
        if learned:
            own |= {name: part[direction] for name, part in zip(operator.STATE, known, strict=True)}
        arrays.append(own)
    options: dict[str, Any] = {"batch_first": bool(operator.layout), "dtype": operator._computed_in}
    activations = operator.activations[0]
    if operator._reverse == (True,) or any(part != activations for part in operator.activations):
        return Description(arrays, options, operator._reverse, cells)
    options |= {"clip": operator.clip, "activations": activations}
    if isinstance(operator, operators.LSTM):
        options |= {"coupled": operator.input_forget}
    elif isinstance(operator, operators.GRU):
        options |= {"linear_before_reset": operator.linear_before_reset}
    else:
        options |= {"nonlinearity": options.pop("activations")[0]}
    return Description(arrays, options, operator._reverse, None)


def _weight(scope: Scope, name: str) -> tuple[np.ndarray, np.dtype]:
    """The value of a name, and its dtype: a float32 array may be given as the float16 numbers that
    it is cast from, which take half the memory."""
    owner, source, _ = scope.source(name)
    if isinstance(source, onnx.NodeProto) and is_standard(source) and source.op_type == "Cast":
        to = [part.i for part in source.attribute if part.name == "to"]
        before = constant(owner, source.input[0]) if to == [onnx.TensorProto.FLOAT] else None
        if before is not None and before.dtype == np.float16:
            return before, np.dtype(np.float32)
    array = constant(scope, name)
    return array, array.dtype


def shortest_decimal(value: Any) -> Any:
    """The shortest number of that float32, or of each in a list: 0.3 for 0.30000001192."""
    return (
        [shortest_decimal(part) for part in value]
        if isinstance(value, list)
        else float(str(np.float32(value)))
    )


def _initial(scope: Scope, name: str, field: str, operator: Operator) -> np.ndarray | None:
    """The constant initial state (directions, H); None if it is known in a run only."""
    directions, H = len(operator._reverse), operator.hidden_size
    if not name:
        return np.zeros((directions, H), operator._computed_in)
    axis = 1 - operator.layout  # that of rows
    try:
        array = constant(scope, name)
    except NotConstantError:
        repeated = _repeated(scope, name)
        if repeated is None:
            return None
        array = repeated
        if array.ndim == 3 and array.shape[axis] > 1:
            first = np.take(array, [0], axis)
            if (array != first).any():
                raise NoLayerError(f"{field}: expected the same constants for every row") from None
            array = first
        shape = [directions, H]
        shape.insert(axis, 1)
        array = np.broadcast_to(array, shape)
    if array.ndim != 3 or array.shape[1 - axis] != directions or array.shape[2] != H:
        wanted = f"rows, {directions}" if operator.layout else f"{directions}, rows"
        raise ValueError(f"{field}: expected shape ({wanted}, {H}), got {array.shape}")
    rows = np.moveaxis(array, axis, 0)
    if not len(rows) or (rows != rows[:1]).any():
        raise NoLayerError(f"{field}: expected the same constants for every row")
    return np.array(rows[0], operator._computed_in)


def states_of_a_run(scope: Scope, node: Any) -> list[str]:
    """The names of the node's initial states that are no constants."""
    inputs = named_inputs(node, scope.file.opset)
    names = [inputs[field] for field in ("initial_h", "initial_c") if field in inputs]
    return [
        name
        for name in names
        if known_constant(scope, name) is None and _repeated(scope, name) is None
    ]


def _repeated(scope: Scope, name: str) -> np.ndarray | None:
    """The constant in every row of an array of a shape that a run gives; None if there is none."""
    scope, source, _ = scope.source(name)
    if not (isinstance(source, onnx.NodeProto) and is_standard(source)):
        return None
    try:
        if source.op_type == "Expand":
            return constant(scope, source.input[0])
        if source.op_type == "ConstantOfShape":
            value = [part.t for part in source.attribute if part.name == "value"]
            return onnx.numpy_helper.to_array(value[0]).reshape(()) if value else np.zeros(())
        if source.op_type == "Slice":  # of the states of several layers
            whole = _repeated(scope, source.input[0])
            if whole is not None and whole.size and (whole == whole.flat[0]).all():
                return np.array(whole.flat[0])
    except NotConstantError:
        return None
    return None


def _add_cells(file: File, found: Layers) -> None:
    """Add the layers of the initializers, where their names are torch's."""
    with reading(file.name, "the initializers"):
        arrays = {
            name: constant(scope, name)
            for scope in file.main.scopes()
            for name, tensor in scope.tensors.items()
            if tensor.data_type in NUMBERS
        }
        found.update(read_layers(arrays, Hints()))


def _check_functions(file: File) -> None:
    """Raise ValueError if there are recurrent nodes in local functions, which `layers` skips."""
    for function in file.model.functions:
        for node in function.node:
            if is_standard(node) and node.op_type in RECURRENT:
                raise ValueError(
                    f"{file.name}: function {function.name!r:.80}: expected no recurrent node, "
                    f"got {title(node)!r:.80}; write it into the graph by "
                    "onnx.inliner.inline_local_functions"
                )
