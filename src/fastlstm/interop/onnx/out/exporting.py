"""`export`: a model as an ONNX file."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from fastlstm.checks import read_flag, read_size
from fastlstm.engine.one_step import OneStep
from fastlstm.engine.stack import Stack
from fastlstm.interop.onnx.out.activations import add_activation
from fastlstm.interop.onnx.out.attributes import at, attributes_of
from fastlstm.interop.onnx.out.pools import Lengths, add_pool
from fastlstm.interop.onnx.out.writer import Writer, newest_opset
from fastlstm.layers import gru, lstm_options, rnn
from fastlstm.layers.activation import Activation
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.linear import Linear
from fastlstm.layers.pool import Pool
from fastlstm.layers.sequential import Sequential
from fastlstm.layers.steps.masking import Masking
from fastlstm.module import Module, Output
from fastlstm.onnx import GRU, LSTM, RNN
from fastlstm.onnx.attributes import DIRECTIONS as BY_NAME
from fastlstm.onnx.operator import Operator
from fastlstm.onnx.weights import SUFFIXES, from_layer
from fastlstm.safetensors import Path, write_atomically

FIRST, LARGEST = 17, 2**31 - 1  # opset; bytes of a file
DIRECTIONS = {reverse: name for name, reverse in BY_NAME.items()}
OPERATORS: dict[type, type[Operator]] = {lstm_options.Cell: LSTM, gru.Cell: GRU, rnn.Cell: RNN}


def export(
    model: Module, path: Path, *, opset: int = FIRST, state: bool = False, lengths: bool = False
) -> None:
    """Write a model to an ONNX file, which computes what a call of it does.

    The graph's input is x and its output y, in the layout of the model's calls: (T, B, features),
    (B, T, features) with `batch_first`, and without features for an `Embedding`; T and B are free.
    Lists, `resets`, `mask` and calls without an axis of rows have no counterpart.

    Parameters
    ----------
    model : Module
        A recurrent layer, `Linear`, `Embedding`, `Activation`, `Dropout` (which does nothing in
        inference), `Last`, `Pool`, or a `Sequential` of these.
    path : str or path
        The file changes at once or, after an error, not at all.
    opset : int
        17 or later. LSTM, GRU and RNN have layout 0, which every engine has.
    state : bool
        Whether the graph also has the state: optional inputs h and, of an LSTM, c, without which
        it begins as a call without a state; and outputs h_n and c_n. They have the call's shapes
        (layers · directions, B, H). In a `Sequential`, the names begin with the layer's place, as
        its parameters' do: "1.h". If layers differ in width, each has its own: "h_l0".
    lengths : bool
        Whether the graph has the call's `lengths`, too: an input of that name, int32 (B,), 0 to T.
        `fastlstm.load` does not read such files, `layers` does.

    Raises
    ------
    TypeError
        `model` is not a Module.
    ValueError
        ONNX has no counterpart of a layer (a `Masking`, a module of your own) or of an option
        (`proj_size`, `layer_norm`, `zoneout`), which the message names; the opset is not known; or
        no layer is recurrent, so that calls take no `lengths`.
    OSError
        The file cannot be written.

    Notes
    -----
    Weights keep their bits, and `fastlstm.load` reads the file back. A learned initial state
    becomes a constant. ONNX keeps activations' alpha and beta, and `clip`, in float32. ONNX Runtime
    computes recurrent nodes in float32 only; `Backend` also in float64. What is undefined stays so:
    a `Last` of no steps, and an Embedding's negative indices.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastlstm as fl
    >>> model = fl.Sequential(fl.LSTM(3, 5, batch_first=True, rng=0), fl.Last(), fl.Linear(5, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     fl.interop.onnx.export(model, path)
    ...     again = fl.load(path)
    >>> x = np.ones((2, 7, 3), np.float32)
    >>> bool((again(x)[0] == model(x)[0]).all())
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    opset, newest = read_size("opset", opset), newest_opset()
    if not FIRST <= opset <= newest:
        raise ValueError(f"opset: expected {FIRST} to {newest}, got {opset}")
    with_state, with_lengths = read_flag("state", state), read_flag("lengths", lengths)
    proto = _Export(model, opset, with_state, with_lengths).writer.model("fastlstm")
    onnx.checker.check_model(proto)
    write_atomically(path, [proto.SerializeToString()])


class _Export:
    """The graph of a model; `value` is the name of the result so far."""

    def __init__(self, model: Module, opset: int, with_state: bool, with_lengths: bool):
        self.writer, self.with_state = Writer(opset), with_state
        self.finals: list[tuple[str, str, Any, list[Any]]] = []
        self.ends = ""  # the final h of the layer whose output is the result so far
        leaves = list(_leaves(model, ""))
        first = leaves[0][1] if leaves else None
        batch_first = next(
            (bool(leaf.batch_first) for _, leaf in leaves if _has_layout(leaf)), False
        )
        self.axes: list[Any] = ["batch", "steps"] if batch_first else ["steps", "batch"]
        kinds = (Stack, Linear, Embedding)
        typed = next((leaf for _, leaf in leaves if isinstance(leaf, kinds)), None)
        self.dtype: np.dtype = np.dtype(np.float32) if typed is None else typed.dtype
        self.features: Any = "features"
        if isinstance(typed, Stack):
            self.features = typed._form.inputs
        elif isinstance(typed, Linear):
            self.features = typed.in_features
        _check_size(leaves)
        if isinstance(first, Embedding):
            self.value = self.writer.input("x", np.int64, self.axes)
        else:
            self.value = self.writer.input("x", self.dtype, [*self.axes, self.features])
        self.lengths: Lengths | None = None
        if with_lengths:
            if not any(isinstance(leaf, Stack) for _, leaf in leaves):
                raise ValueError("lengths: no layer is recurrent, so expected False")
            self.lengths = Lengths(self.writer, self.value, batch_first)
            if isinstance(first, Embedding):
                self.value = self.lengths.indices(self.value)
        before = Output()
        for prefix, leaf in leaves:
            self._add(prefix, leaf._after(before))
            before = leaf._output(before)
            self.features = before.features or self.features
        if self.lengths is not None and len(self.axes) == 2 and not isinstance(leaf, Stack):
            self.value = self.lengths.filled(self.value, 0.0, self.dtype)
        self.writer.output("y", self.value, self.dtype, [*self.axes, self.features])
        for name, value, dtype, shape in self.finals:
            self.writer.output(name, value, dtype, shape)

    def _add(self, prefix: str, leaf: Module) -> None:
        node, constant = self.writer.node, self.writer.constant
        ends, self.ends = self.ends, ""
        if isinstance(leaf, (Stack, Linear)) and leaf.dtype != self.dtype:
            to = onnx.helper.np_dtype_to_tensor_dtype(leaf.dtype)
            self.value, self.dtype = node("Cast", self.value, to=to), leaf.dtype
        if _calls_otherwise(leaf):
            raise ValueError(
                f"model: expected layers that ONNX has an operator for, got "
                f"{type(leaf).__name__}{at(prefix)}"
            )
        if isinstance(leaf, Stack):
            self._add_recurrent(prefix, leaf)
        elif isinstance(leaf, Linear):
            weight = constant(f"{prefix}weight.T", leaf.weight.T)
            self.value = node("MatMul", self.value, weight)
            if leaf.bias is not None:
                self.value = node("Add", self.value, constant(f"{prefix}bias", leaf.bias))
        elif isinstance(leaf, Embedding):
            weight = constant(f"{prefix}weight", leaf.weight)
            self.value, self.dtype = node("Gather", weight, self.value, axis=0), leaf.dtype
        elif isinstance(leaf, Activation):
            self.value = add_activation(self.writer, self.value, leaf, self.dtype)
        elif isinstance(leaf, Pool):
            self._add_pool(leaf, ends)
        else:  # Dropout
            self.ends = ends

    def _add_pool(self, pool: Pool, ends: str) -> None:
        axis = int(pool._reads_batch_first)
        self.value = add_pool(
            self.writer,
            pool,
            self.value,
            ends=ends,
            axis=axis,
            features=self.features,
            dtype=self.dtype,
            lengths=self.lengths,
        )
        del self.axes[axis]

    def _add_recurrent(self, prefix: str, layer: Stack) -> None:
        node, integers = self.writer.node, self.writer.integers
        directions, batch_first = len(layer.cells.reverse), layer.batch_first
        batch = node("Shape", self.value, start=1 - batch_first, end=2 - batch_first)
        rows = node("Concat", integers(1), batch, integers(1), axis=0)
        given = self._given_states(prefix, layer) if self.with_state else None
        finals: list[list[str]] = [[] for _ in layer.cells.by_layer[0][0].state]
        if batch_first:
            self.value = node("Transpose", self.value, perm=[1, 0, 2])
        for k, cells in enumerate(map(tuple[Any, ...], layer.cells.by_layer)):
            operator = OPERATORS.get(type(cells[0]))
            if operator is None:
                raise ValueError(f"model: expected an LSTM, GRU or RNN{at(prefix)}, got {layer!r}")
            arrays = self._weights(prefix, layer, k, operator)
            initial = [""] * len(operator.STATE)
            if given is not None:
                initial = [node("Expand", part[k], rows) for part in given]
            elif layer.learn_initial_state:
                initial = [
                    node(
                        "Expand", self.writer.constant(f"{prefix}initial_{part}_l{k}", array), rows
                    )
                    for part, array in zip("hc", _learned(layer, k), strict=False)
                ]
            lengths = self.lengths.name if self.lengths is not None else ""
            inputs = [self.value, *(arrays.get(name, "") for name in "WRB"), lengths, *initial]
            inputs.append(arrays.get("P", ""))
            while not inputs[-1]:
                inputs.pop()
            name = f"{prefix}l{k}"
            outputs = [f"{name}:{output}" for output in operator.OUTPUTS]
            attributes = {
                "hidden_size": cells[0].H,
                "direction": DIRECTIONS[layer.cells.reverse],
                **attributes_of(cells, prefix),
            }
            node(operator.__name__, *inputs, name=name, outputs=outputs, **attributes)
            ends = outputs[1:]
            if self.lengths is not None and initial[0]:
                pairs = zip(ends, initial, strict=True)
                ends = [self.lengths.begun(end, start) for end, start in pairs]
            for part, output in zip(finals, ends, strict=True):
                part.append(output)
            self.ends = outputs[1]
            is_last = k == len(layer.cells.by_layer) - 1
            self.value = self._joined(outputs[0], directions, batch_first and is_last)
        if self.with_state:
            self._add_finals(prefix, layer, finals)

    def _joined(self, Y: str, directions: int, batch_first: bool) -> str:
        """The output (T, B, directions · H), or (B, T, …), of a node's Y (T, directions, B, H)."""
        node = self.writer.node
        if directions == 1:
            y = node("Squeeze", Y, self.writer.integers(1))
            return node("Transpose", y, perm=[1, 0, 2]) if batch_first else y
        turned = node("Transpose", Y, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3])
        return node("Reshape", turned, self.writer.integers(0, 0, -1))

    def _weights(self, prefix: str, layer: Stack, k: int, operator: Any) -> dict[str, str]:
        """W, R, B and P as constants; their names."""
        parameters = layer.parameters()
        own = {}
        for direction, cell in enumerate(layer.cells.by_layer[k]):
            for name in cell.shapes():
                own[name + SUFFIXES[direction]] = parameters[
                    name + layer.cells.suffix(k, direction)
                ]
        arrays = from_layer(own, len(layer.cells.reverse), operator.gate_order)
        return {
            name: self.writer.constant(f"{prefix}{name}_l{k}", array)
            for name, array in arrays.items()
        }

    def _given_states(self, prefix: str, layer: Stack) -> list[list[str]]:
        """The inputs of the initial state; for each part of it, that of each layer."""
        layout, D = layer._form.layout, len(layer.cells.reverse)
        given = []
        for p, (part, sizes) in enumerate(zip(layout.names, layout.sizes, strict=True)):
            starts = [
                _learned(layer, k)[p]
                if layer.learn_initial_state
                else np.zeros((D, 1, size), layer.dtype)
                for k, size in enumerate(sizes)
            ]
            names = [f"{prefix}{part}_l{k}" for k in range(len(sizes))]
            if len(set(sizes)) == 1:
                names, starts = [f"{prefix}{part}"], [np.concatenate(starts)]
            for name, start in zip(names, starts, strict=True):
                # Not "batch": the default has one row.
                self.writer.input(name, layer.dtype, [len(start), None, start.shape[2]])
                self.writer.tensors[name] = start
            if len(names) < len(sizes):
                integers, node = self.writer.integers, self.writer.node
                names = [
                    node("Slice", *names, integers(k * D), integers((k + 1) * D), integers(0))
                    for k in range(len(sizes))
                ]
            given.append(names)
        return given

    def _add_finals(self, prefix: str, layer: Stack, finals: list[list[str]]) -> None:
        layout, D = layer._form.layout, len(layer.cells.reverse)
        for part, sizes, values in zip(layout.names, layout.sizes, finals, strict=True):
            name = f"{prefix}{part}_n"
            if len(set(sizes)) > 1:
                for k, (size, value) in enumerate(zip(sizes, values, strict=True)):
                    shape = [D, "batch", size]
                    self.finals.append((f"{name}_l{k}", value, layer.dtype, shape))
                continue
            shape = [len(sizes) * D, "batch", sizes[0]]
            joined = self.writer.node("Concat", *values, axis=0) if len(sizes) > 1 else values[0]
            self.finals.append((name, joined, layer.dtype, shape))


def _leaves(module: Module, prefix: str) -> Iterator[tuple[str, Module]]:
    """The layers in order, each with the beginning of its parameters' names."""
    if isinstance(module, Sequential) and not _calls_otherwise(module):
        for index, inner in enumerate(module):
            yield from _leaves(inner, f"{prefix}{index}.")
    else:
        yield prefix, module


def _calls_otherwise(module: Module) -> bool:
    """Whether a call does what no operator does: a class of one's own, marks, or one step."""
    kinds = Sequential, Stack, Linear, Embedding, Activation, Pool, Dropout
    known = next((kind for kind in kinds if isinstance(module, kind)), None)
    own = known is None or type(module).__call__ is not known.__call__
    return own or isinstance(module, (Masking, OneStep))


def _has_layout(leaf: Module) -> bool:
    return isinstance(leaf, (Stack, Pool)) and leaf.batch_first is not None


def _check_size(leaves: list[tuple[str, Module]]) -> None:
    size = sum(array.nbytes for _, leaf in leaves for array in leaf.parameters().values())
    if size > LARGEST:
        raise ValueError(f"model: expected at most {LARGEST} bytes of weights, got {size}")


def _learned(layer: Stack, k: int) -> list[np.ndarray]:
    """The learned initial state of a layer's directions, (directions, 1, H) for each part."""
    parameters = layer.parameters()
    suffixes = [layer.cells.suffix(k, direction) for direction in range(len(layer.cells.reverse))]
    return [
        np.stack([parameters[f"initial_{part}{suffix}"] for suffix in suffixes])[:, None]
        for part in layer._form.layout.names
    ]
