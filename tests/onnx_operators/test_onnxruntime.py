"""The operators against ONNX Runtime's, over all that it takes."""

from functools import cache

import numpy as np
import pytest
from compare import assert_near
from operators import INPUTS, OUTPUTS, call, random_call

onnx = pytest.importorskip("onnx", reason="the models are made with the onnx package")
onnxruntime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")
COUNT = 500  # calls of each operator


def run(made):
    """What ONNX Runtime gives for a call."""
    helper = onnx.helper
    given = [name if name in made.inputs else "" for name in INPUTS]
    while not given[-1]:
        given.pop()
    graph = helper.make_graph(
        [helper.make_node(made.kind, given, OUTPUTS[made.kind], **made.attributes)],
        "one node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in made.inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in OUTPUTS[made.kind]
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, made.inputs)


@cache
def calls(kind):
    """(call, outputs of ONNX Runtime) for `COUNT` calls.

    Those whose activations without a bound run away are left out: ONNX Runtime's Softplus is inf
    from 89 on, and differences grow with the values.
    """
    rng, pairs = np.random.default_rng(7), []
    while len(pairs) < COUNT:
        made = random_call(rng, kind)
        outputs = run(made)
        if max(np.abs(array).max() for array in outputs) < 30:
            pairs.append((made, outputs))
    return pairs


@pytest.mark.parametrize("kind", OUTPUTS)
def test_differential(kernels, kind):
    for made, expected in calls(kind):
        for name, ours, theirs in zip(OUTPUTS[kind], made(), expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert_near(ours, theirs, 5e-5, f"{name} of {made.sizes} {made.attributes}")


def test_what_onnxruntime_does_otherwise(kernels, rng):
    """Where the specification is silent; see the notes in `fl.onnx.LSTM`."""
    made = call(rng, "LSTM", dtype=np.float32, lengths=[4, 0, 5, 2])
    Y, Y_h, Y_c = made()
    theirs = run(made)
    np.testing.assert_allclose(Y, theirs[0], atol=1e-6)
    for name, ours, their in (("initial_h", Y_h, theirs[1]), ("initial_c", Y_c, theirs[2])):
        np.testing.assert_array_equal(ours[:, 1], made.inputs[name][:, 1])
        np.testing.assert_array_equal(their[:, 1], 0)
        np.testing.assert_allclose(ours[:, [0, 2, 3]], their[:, [0, 2, 3]], atol=1e-6)
