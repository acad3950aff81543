"""The nodes and constants of a graph in the making."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Writer:
    """A graph in the making: values are known by their names.

    Parameters
    ----------
    opset : int
    """

    def __init__(self, opset: int):
        self.opset = opset
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.tensors: dict[str, np.ndarray] = {}
        self._names: set[str] = set()

    def constant(self, name: str, array: Any) -> str:
        """Add an initializer; returns its name."""
        name = self.new_name(name)
        self.tensors[name] = np.asarray(array)
        return name

    def integers(self, *values: int) -> str:
        """Add an initializer of int64, or use the one that is there; returns its name."""
        name = f"[{','.join(map(str, values))}]"
        self.tensors[name] = np.array(values, np.int64)
        return name

    def number(self, value: float, dtype: np.dtype) -> str:
        """Add an initializer of no axes, or use the one that is there; returns its name."""
        name = f"{value!r}:{dtype.name}"
        self.tensors[name] = np.array(value, dtype)
        return name

    def node(
        self,
        kind: str,
        *inputs: str,
        name: str = "",
        outputs: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """Add a node; returns the name of its first output."""
        name = name or self.new_name(kind)
        outputs = outputs or [f"{name}:0"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def reduce(self, kind: str, x: str, axis: int) -> str:
        """Add a reduction over one axis, which goes."""
        if self.opset < 18 and kind != "ReduceSum":  # later, axes are an input
            return self.node(kind, x, axes=[axis], keepdims=0)
        return self.node(kind, x, self.integers(axis), keepdims=0)

    def input(self, name: str, dtype: Any, shape: Sequence[Any]) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        self._names.add(name)
        return name

    def output(self, name: str, value: str, dtype: Any, shape: Sequence[Any]) -> None:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output {name}"))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def new_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def model(self, producer: str) -> Any:
        """Return the ModelProto, without nodes that no output needs."""
        needed = {part.name for part in (*self.inputs, *self.outputs)}
        nodes: list[Any] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.insert(0, node)
        graph = helper.make_graph(
            nodes,
            "model",
            self.inputs,
            self.outputs,
            [
                numpy_helper.from_array(np.asarray(array, order="C"), name)
                for name, array in self.tensors.items()
                if name in needed
            ],
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports),
            producer_name=producer,
        )


def newest_opset() -> int:
    """The newest opset that the onnx package knows and that belongs to a release."""
    return min(onnx.defs.onnx_opset_version(), max(row[2] for row in helper.VERSION_TABLE))
