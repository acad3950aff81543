"""`read`: a file whose graph is a chain of this library's layers, as one Module."""

from typing import Any

from fastlstm.interop.onnx import dense, patterns, views
from fastlstm.interop.onnx.chain import Chain, OtherGraphError
from fastlstm.interop.onnx.graph import File
from fastlstm.interop.reading import Hints, reading
from fastlstm.layers.sequential import Sequential
from fastlstm.safetensors import Path

NODES = {
    "Add": dense.add,
    "Cast": views.cast,
    "Concat": views.concat,
    "Dropout": views.same,
    "Gather": dense.gather,
    "Gemm": dense.gemm,
    "Identity": views.same,
    "MatMul": dense.matmul,
    "Mul": patterns.product,
    "ReduceMax": views.pool,
    "ReduceMean": views.pool,
    "Reshape": views.reshape,
    "Slice": views.cut,
    "Squeeze": views.squeeze,
    "Transpose": views.transpose,
    **dict.fromkeys((*dense.ACTIVATIONS, "Gelu", "Selu", "Softmax"), dense.activation),
}


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
            modules = Chain(file, NODES).modules()
        except OtherGraphError as error:
            raise ValueError(
                f"expected a chain of layers that fastlstm has, but {error}; "
                "fastlstm.interop.onnx.layers gives the recurrent layers of any graph, "
                "and interop.onnx.Backend runs it"
            ) from error
        return modules[0] if len(modules) == 1 else Sequential(*modules)
