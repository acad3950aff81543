"""The same LSTM as an ONNX model, for ONNX Runtime and OpenVINO.

The operator: https://onnx.ai/onnx/operators/onnx__LSTM.html. Its gates are in the order i, o, f, c
where torch's and ours are in the order i, f, g, o; its output is [T, directions, B, H].
"""

import numpy as np

from bench.peers.base import CannotDoError, refuse
from bench.problem import Problem

OPSET, IR_VERSION = 17, 9  # old enough for every reader
GATE_ORDER = (0, 3, 1, 2)


def onnx_model(problem: Problem) -> bytes:
    """An ONNX model with the shapes of `problem`, serialised.

    Its inputs are those of `onnx_inputs`; its outputs "y" [T, B, directions * H], then "h{k}" and
    "c{k}" [directions, B, H] for each layer k.

    Raises
    ------
    CannotDoError
        For what the operator, or both engines' float32 kernels, cannot do.
    """
    from onnx import helper, numpy_helper

    refuse(problem, "proj_size", "resets")
    case = problem.case
    if case.dtype != "float32":
        raise CannotDoError(f"no {case.dtype}")
    directions = 2 if case.bidirectional else 1
    constants = {"shape": np.array([case.T, case.B, directions * case.H])}
    nodes, states, y = [], [], "x"
    lengths = "" if problem.lengths is None else "lengths"
    for k in range(case.layers):
        constants.update(_weights(problem, k))
        inputs = [y, f"W{k}", f"R{k}", f"b{k}", lengths, f"h0_{k}", f"c0_{k}"]
        lstm = helper.make_node(
            "LSTM",
            inputs,
            [f"directions{k}", f"h{k}", f"c{k}"],
            hidden_size=case.H,
            direction="bidirectional" if case.bidirectional else "forward",
        )
        nodes.append(lstm)
        y = f"directions{k}"
        if case.bidirectional:  # for one direction, the reshape alone does it
            nodes.append(helper.make_node("Transpose", [y], [f"rows{k}"], perm=(0, 2, 1, 3)))
            y = f"rows{k}"
        nodes.append(helper.make_node("Reshape", [y, "shape"], [f"y{k}"]))
        y = f"y{k}"
        states += [f"h{k}", f"c{k}"]
    nodes[-1].output[0] = "y"

    def declare(name, shape, dtype=np.float32):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    feed = onnx_inputs(problem)
    graph = helper.make_graph(
        nodes,
        "lstm",
        [declare(name, array.shape, array.dtype) for name, array in feed.items()],
        [
            declare("y", constants["shape"].tolist()),
            *(declare(name, (directions, case.B, case.H)) for name in states),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return model.SerializeToString()


def onnx_inputs(problem: Problem) -> dict[str, np.ndarray]:
    """What the model reads: "x", each layer's "h0_{k}" and "c0_{k}", and "lengths" if ragged."""
    directions = 2 if problem.case.bidirectional else 1
    feed = {"x": problem.x}
    for k in range(problem.case.layers):
        both = slice(k * directions, (k + 1) * directions)
        feed |= {f"h0_{k}": problem.h0[both], f"c0_{k}": problem.c0[both]}
    if problem.lengths is not None:
        feed["lengths"] = problem.lengths.astype(np.int32)
    return feed


def _weights(problem: Problem, k: int) -> dict[str, np.ndarray]:
    """Layer k's W [directions, 4H, I], R [directions, 4H, H] and b [directions, 8H]."""
    parameters = problem.lstm.state_dict()
    suffixes = [f"_l{k}", f"_l{k}_reverse"][: 2 if problem.case.bidirectional else 1]

    def reordered(kind):
        return [_reorder(parameters[kind + suffix]) for suffix in suffixes]

    biases = zip(reordered("bias_ih"), reordered("bias_hh"), strict=True)
    return {
        f"W{k}": np.stack(reordered("weight_ih")),
        f"R{k}": np.stack(reordered("weight_hh")),
        f"b{k}": np.stack([np.concatenate(both) for both in biases]),
    }


def _reorder(array: np.ndarray) -> np.ndarray:
    """[4H, ...] with its gates in ONNX's order."""
    return np.concatenate([np.split(array, 4)[gate] for gate in GATE_ORDER])
