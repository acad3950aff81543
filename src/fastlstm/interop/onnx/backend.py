"""ONNX models whose recurrent nodes fastlstm computes.

`Backend` is ONNX's own interface (`onnx.backend.base.Backend`). LSTM, GRU and RNN nodes run on
`fastlstm.onnx`, the others on the operators of `onnx.reference`. Only the types of nodes that are
common in small recurrent models are supported, also in branches of If.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend as BaseBackend
from onnx.backend.base import BackendRep, namedtupledict
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from fastlstm import onnx as operators
from fastlstm.interop.onnx.constants import constant_names
from fastlstm.interop.onnx.graph import OLDEST, RECURRENT, inner_graphs
from fastlstm.interop.onnx.nodes import WEIGHTS, attributes_of

ELEMENTWISE = (
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp"),
    *("Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "Identity", "LeakyRelu", "Less"),
    *("LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu"),
    *("Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
    *("ThresholdedRelu", "Where"),
)
SHAPES = (
    *("Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Pad", "Reshape"),
    *("Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
ACROSS = (
    *("ArgMax", "Conv", "Gemm", "If", "LogSoftmax", "MatMul", "ReduceMax", "ReduceMean"),
    *("ReduceSum", "Softmax"),
)
SUPPORTED = frozenset((*RECURRENT, *ELEMENTWISE, *SHAPES, *ACROSS))


class _Recurrent(OpRun):
    """A node of one of the recurrent operators."""

    op_domain = ""
    constants: frozenset[str] = frozenset()  # names that have the same value in every run

    def __init__(self, node: Any, parameters: Any) -> None:
        super().__init__(node, parameters)
        opset = parameters["opsets"][""]
        schema = onnx.defs.get_schema(node.op_type, opset)
        self._names = [formal.name for formal in schema.inputs]
        self._attributes = attributes_of(node, opset)
        inputs = dict(zip(self._names, node.input, strict=False))
        self._is_fixed = all(inputs.get(name, "") in {*self.constants, ""} for name in WEIGHTS)
        self._operator: Any = None

    def _run(self, *inputs: Any, **_: Any) -> tuple[np.ndarray, ...]:
        named = dict(zip(self._names, inputs, strict=False))
        weights = {name: named.pop(name) for name in WEIGHTS if name in named}
        operator = self._operator
        if operator is None:
            operator = getattr(operators, self.onnx_node.op_type)(**weights, **self._attributes)
        if self._is_fixed:
            self._operator = operator
        outputs: tuple[np.ndarray, ...] = operator(**named)
        return outputs[: len(self.onnx_node.output)]


class Model(BackendRep):
    """A model that is ready to run."""

    def __init__(self, model: "onnx.ModelProto"):
        initial = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [part.name for part in model.graph.input if part.name not in initial]
        constants = {"constants": constant_names(model.graph)}
        nodes = [type(kind, (_Recurrent,), constants) for kind in RECURRENT]
        self._evaluator = ReferenceEvaluator(_without_omitted_outputs(model), new_ops=nodes)
        self._outputs = namedtupledict("Outputs", self._evaluator.output_names)

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Run the model, and return its outputs, by name and in their order.

        Parameters
        ----------
        inputs : array, sequence of arrays in the order of the model's inputs, or mapping by name
            Inputs that are initializers may be left out.

        Raises
        ------
        ValueError
            Inputs are missing or unknown.
        TypeError
            `inputs` is neither arrays nor a mapping.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if not isinstance(inputs, Sequence):
                raise TypeError(f"inputs: expected arrays, got {type(inputs).__name__}")
            if len(inputs) != len(self._inputs):
                raise ValueError(f"inputs: expected {self._inputs}, got {len(inputs)} arrays")
            inputs = dict(zip(self._inputs, inputs, strict=True))
        missing = [name for name in self._inputs if name not in inputs]
        unknown = [name for name in inputs if name not in self._evaluator.input_names]
        if missing or unknown:
            raise ValueError(f"inputs: missing names {missing}, unknown names {unknown}")
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        outputs: tuple[Any, ...] = self._outputs(*self._evaluator.run(None, arrays))
        return outputs


class Backend(BaseBackend):
    """Runs models of LSTM, GRU, RNN and the nodes around them, on the CPU.

    ``Backend.prepare(model).run(inputs)`` or ``Backend.run_model(model, inputs)``.
    """

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **_: Any) -> bool:
        """Return whether `prepare` accepts the model."""
        return cls.supports_device(device) and _why_not(model) is None

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **_: Any) -> Model:
        """Return a model that is ready to run.

        Raises
        ------
        ValueError
            A node has a type that is not supported, the opset of the model is below 7, or the
            device is not a CPU.
        """
        if not cls.supports_device(device):
            raise ValueError(f"device: expected 'CPU', got {device!r}")
        onnx.checker.check_model(model)
        reason = _why_not(model)
        if reason is not None:
            raise ValueError(f"model: {reason}")
        return Model(model)

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **options: Any
    ) -> tuple[Any, ...]:
        """Run one node, and return its outputs. `inputs` has an array for each input it names."""
        opset = options.get("opset_version", onnx.defs.onnx_opset_version())
        kind, names = onnx.TensorProto, [name for name in node.input if name]
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [
                value(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in zip(names, inputs, strict=True)
            ],
            [value(name, kind.UNDEFINED, None) for name in node.output if name],
        )
        imports = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports)
        onnx.checker.check_node(node)
        if (reason := _why_not(model)) is not None:
            raise ValueError(f"node: {reason}")
        return Model(model).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.partition(":")[0] == "CPU"


def _why_not(model: Any) -> str | None:
    """Why the model cannot run here; None if it can."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", 0)
    if opset < OLDEST:
        return f"expected opset {OLDEST} or later, got {opset}"
    lacking: dict[str, str] = {}
    for node in _nodes(model.graph):
        if node.domain or node.op_type not in SUPPORTED:
            kind = ".".join(filter(None, (node.domain, node.op_type)))
            lacking.setdefault(kind, f"node {node.name or list(node.output)!r} is a {kind}")
    if not lacking:
        return None
    return f"{', '.join(lacking.values())}; expected one of {', '.join(sorted(SUPPORTED))}"


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of those within it."""
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _nodes(inner)


def _without_omitted_outputs(model: Any) -> Any:
    """The model, with names for outputs that have none.

    ReferenceEvaluator stores outputs without a name as "", the name of inputs that are left out.
    """
    if all(name for node in _nodes(model.graph) for name in node.output):
        return model
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for n, node in enumerate(_nodes(named.graph)):
        for k, name in enumerate(node.output):
            node.output[k] = name or f"output {k} of node {n}, which is omitted"
    return named
