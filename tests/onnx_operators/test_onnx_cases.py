"""Numbers that ONNX and ONNX Runtime published for the operators."""

import json

import numpy as np
import pytest

import fastlstm as fl

RUNTIME_CASES = [
    "ForwardSimpleWeightsNoBiasTwoRows#1",
    "ForwardSimpleWeightsNoBiasTwoRows#2",
    "ReverseSimpleWeightsNoBiasTwoRows#1",
    "BidirectionalSimpleWeightsNoBiasTwoRows#1",
    "MixedSequenceLengths#1",
    "MixedSequenceLengths#2",
    "MixedSequenceLengthsReverse#1",
    "MixedSequenceLengthsReverse#2",
    "BatchParallelFalseSeqLengthGreaterThanOne#1",
    "ONNXRuntime_TestLSTMForwardPeepHole#1",
    "ONNXRuntime_TestLSTMBidirectionalBasic#1",
    "ONNXRuntime_TestLSTMForwardNoBiasUsePeepholes#1",
    "ONNXRuntime_TestLSTMBackward#1",
    "ONNXRuntime_TestLSTMForwardHiddenState#1",
    "ONNXRuntime_TestLSTMForwardCellState#1",
]
NODE_CASES = [
    *("lstm_defaults", "lstm_with_initial_bias", "lstm_with_peepholes", "lstm_batchwise"),
    *("lstm_reverse", "lstm_bidirectional"),
    *("gru_defaults", "gru_with_initial_bias", "gru_seq_length", "gru_batchwise"),
    *("rnn_seq_length", "simple_rnn_defaults", "simple_rnn_with_initial_bias"),
    "simple_rnn_batchwise",
]


@pytest.fixture
def runtime_cases(cases):
    table = json.loads((cases / "ort" / "lstm_cases.json").read_text())
    return {case["name"]: case for case in table}


def test_no_case_is_left_out(cases, runtime_cases):
    assert runtime_cases.keys() == set(RUNTIME_CASES)
    folders = {folder.name for folder in (cases / "onnx_node").glob("test_*")}
    assert folders == {f"test_{name}" for name in NODE_CASES}


@pytest.mark.parametrize("name", RUNTIME_CASES)
def test_onnxruntime(kernels, runtime_cases, name):
    case = runtime_cases[name]
    shapes = case["shapes"] | dict.fromkeys(("initial_h", "initial_c"), case["shapes"]["initial"])
    shapes["Y_c"] = shapes["Y_h"]

    def array(key):
        return None if case[key] is None else np.reshape(case[key], shapes[key]).astype(np.float32)

    outputs = fl.onnx.lstm(
        **{key: array(key) for key in ("X", "W", "R", "B", "initial_h", "initial_c", "P")},
        sequence_lens=case["sequence_lens"],
        direction=case["direction"],
        hidden_size=case["hidden_size"],
        activations=case["activations"],
        clip=case["clip"],
        input_forget=case["input_forget"],
    )
    compared = 0
    for key, output in zip(("Y", "Y_h", "Y_c"), outputs, strict=True):
        if case[key] is not None:
            np.testing.assert_allclose(output, array(key), atol=1e-5, err_msg=key)
            compared += 1
    assert compared


@pytest.mark.parametrize("name", NODE_CASES)
def test_onnx_node(kernels, cases, name):
    onnx = pytest.importorskip("onnx", reason="the cases are protobuf files")
    folder = cases / "onnx_node" / f"test_{name}"

    def arrays(kind):
        files = sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))
        return [onnx.numpy_helper.to_array(onnx.load_tensor(str(file))) for file in files]

    model = onnx.load(str(folder / "model.onnx"))
    (node,) = model.graph.node
    values = dict(zip([part.name for part in model.graph.input], arrays("input"), strict=True))
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if "direction" in attributes:
        attributes["direction"] = attributes["direction"].decode()
    operator = getattr(fl.onnx, node.op_type.lower())
    results = operator(*(values.get(name) for name in node.input), **attributes)
    by_name = dict(zip(node.output, results, strict=False))
    by_backend = fl.interop.onnx.Backend.run_model(model, arrays("input"))
    expected = arrays("output")
    assert len(expected) == len(model.graph.output)
    for part, array, other in zip(model.graph.output, expected, by_backend, strict=True):
        np.testing.assert_allclose(by_name[part.name], array, atol=1e-6, err_msg=part.name)
        np.testing.assert_array_equal(other, by_name[part.name])
