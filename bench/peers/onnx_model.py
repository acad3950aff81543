"""The same layers as an ONNX model, for ONNX Runtime, OpenVINO and MNN.

The operators: https://onnx.ai/onnx/operators/onnx__LSTM.html, likewise GRU and RNN. Their gates are
in an order of their own (`CELLS` has it); their output is [T, directions, B, H].
"""

import numpy as np

import fastlstm as fl
from bench.cells import CELLS
from bench.peers.base import CannotDoError, refuse
from bench.problem import Problem

OPSET, IR_VERSION = 17, 9  # old enough for every reader


def onnx_model(problem: Problem, head: fl.Linear | None = None) -> bytes:
    """An ONNX model with the shapes of `problem`, serialised.

    Its inputs are those of `onnx_inputs`; its outputs "y" [T, B, directions * H], then "h{k}"
    [directions, B, H] for each layer k, with an LSTM's "c{k}" behind it.

    Parameters
    ----------
    problem : Problem
    head : fl.Linear, optional
        A layer on top, which gives "y" its last axis.

    Raises
    ------
    CannotDoError
        For what the operator, or the engines' float32 kernels, cannot do.
    """
    from onnx import helper, numpy_helper

    refuse(problem, "proj_size", "resets")
    case, cell = problem.case, CELLS[problem.case.cell]
    if case.dtype != "float32":
        raise CannotDoError(f"no {case.dtype}")
    directions = 2 if case.bidirectional else 1
    constants = {"shape": np.array([case.T, case.B, directions * case.H])}
    nodes, states, y = [], [], "x"
    lengths = "" if problem.lengths is None else "lengths"
    for k in range(case.layers):
        constants.update(_weights(problem, k))
        initial = [f"{part}0_{k}" for part in cell.state] if problem.state else []
        final = [f"{part}{k}" for part in cell.state]
        layer = helper.make_node(
            case.cell,
            [y, f"W{k}", f"R{k}", f"b{k}", lengths, *initial],
            [f"directions{k}", *final],
            hidden_size=case.H,
            direction="bidirectional" if case.bidirectional else "forward",
            **cell.onnx_attributes,
        )
        nodes.append(layer)
        y = f"directions{k}"
        if case.bidirectional:  # for one direction, the reshape alone does it
            nodes.append(helper.make_node("Transpose", [y], [f"rows{k}"], perm=(0, 2, 1, 3)))
            y = f"rows{k}"
        nodes.append(helper.make_node("Reshape", [y, "shape"], [f"y{k}"]))
        y = f"y{k}"
        states += final
    if head is not None:
        constants.update(weight=head.weight.T, bias=head.bias)
        nodes.append(helper.make_node("MatMul", [y, "weight"], ["product"]))
        nodes.append(helper.make_node("Add", ["product", "bias"], ["y"]))
    nodes[-1].output[0] = "y"

    def declare(name, shape, dtype=np.float32):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    feed = onnx_inputs(problem)
    graph = helper.make_graph(
        nodes,
        case.cell,
        [declare(name, array.shape, array.dtype) for name, array in feed.items()],
        [
            declare("y", (case.T, case.B, head.out_features if head else directions * case.H)),
            *(declare(name, (directions, case.B, case.H)) for name in states),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return model.SerializeToString()


def onnx_inputs(problem: Problem) -> dict[str, np.ndarray]:
    """What the model reads: "x", ragged "lengths", a given state's "h0_{k}" and LSTM's "c0_{k}"."""
    directions = 2 if problem.case.bidirectional else 1
    feed = {"x": problem.x}
    for k in range(problem.case.layers if problem.state else 0):
        both = slice(k * directions, (k + 1) * directions)
        parts = zip(CELLS[problem.case.cell].state, problem.state, strict=True)
        feed |= {f"{part}0_{k}": array[both] for part, array in parts}
    if problem.lengths is not None:
        feed["lengths"] = problem.lengths.astype(np.int32)
    return feed


def _weights(problem: Problem, k: int) -> dict[str, np.ndarray]:
    """Layer k's W [directions, gates * H, I], R [directions, gates * H, H] and both biases."""
    order = CELLS[problem.case.cell].onnx_gates
    parameters = problem.layer.state_dict()
    suffixes = [f"_l{k}", f"_l{k}_reverse"][: 2 if problem.case.bidirectional else 1]

    def reordered(kind):
        return [_reorder(parameters[kind + suffix], order) for suffix in suffixes]

    biases = zip(reordered("bias_ih"), reordered("bias_hh"), strict=True)
    return {
        f"W{k}": np.stack(reordered("weight_ih")),
        f"R{k}": np.stack(reordered("weight_hh")),
        f"b{k}": np.stack([np.concatenate(both) for both in biases]),
    }


def _reorder(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """[gates * H, ...] with its gates in `order`."""
    gates = np.split(array, len(order))
    return np.concatenate([gates[gate] for gate in order])
