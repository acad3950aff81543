"""ONNX graphs of a few nodes, and ONNX Runtime on one thread."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the models are made with the onnx package")
helper = onnx.helper
node = helper.make_node


def graph_of(nodes, inputs, outputs, constants=(), name="graph"):
    """A graph; `inputs` are shapes or (shape, dtype) by name, `constants` arrays by name."""
    value = helper.make_tensor_value_info
    given = []
    for key, shape in dict(inputs).items():
        dtype = np.float32
        if len(shape) == 2 and isinstance(shape[0], (list, tuple)):
            shape, dtype = shape
        given.append(value(key, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape))
    kinds = dict(outputs) if isinstance(outputs, dict) else dict.fromkeys(outputs, np.float32)
    return helper.make_graph(
        nodes,
        name,
        given,
        [
            value(key, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
            for key, kind in kinds.items()
        ],
        [
            onnx.numpy_helper.from_array(np.asarray(array), key)
            for key, array in dict(constants).items()
        ],
    )


def model_of(nodes, inputs, outputs, constants=(), opset=17, ir_version=8):
    graph = graph_of(nodes, inputs, outputs, constants)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def session(model):
    """ONNX Runtime for a model or a path."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not isinstance(model, str):
        model = model.SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
