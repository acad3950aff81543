"""Numbers that other projects published, as far as the plain LSTM and the GRU reproduce them.

keras-js and the training case have hard-sigmoid gates, and some of ONNX's cases have peepholes:
they are no plain LSTMs.
"""

import json

import numpy as np
import pytest

import fastlstm as fl


def read(path):
    return json.loads(path.read_text())


def lstm_of(W, R, b=None, **options):
    """A layer of W [directions, 4H, I], R [directions, 4H, H], b [directions, 4H]; gates ifgo."""
    directions, rows, features = W.shape
    zeros = np.zeros((directions, rows))
    lstm = fl.LSTM(features, rows // 4, bidirectional=directions == 2, **options)
    lstm.load_state_dict(
        {
            kind + suffix: values[direction]
            for direction, suffix in enumerate(("_l0", "_l0_reverse")[:directions])
            for kind, values in {
                "weight_ih": W,
                "weight_hh": R,
                "bias_ih": zeros if b is None else b,
                "bias_hh": zeros,
            }.items()
        }
    )
    return lstm


def test_pytorch_cpp(kernels, cases, dtype):
    case = read(cases / "pytorch" / "rnn_cpp_case.json")
    lstm = fl.LSTM(case["I"], case["H"], dtype=dtype)
    lstm.load_state_dict(
        {
            name: (np.arange(array.size) / array.size).reshape(array.shape)
            for name, array in lstm.state_dict().items()
        }
    )
    x = ((24 - np.arange(24)) / 24).reshape(3, 4, 2)
    y, _ = lstm(x)
    np.testing.assert_allclose(y.ravel(), case["y"], atol=case["tol"])


def keras_lstm(kernel, recurrent_kernel, bias):
    """Keras has the same gates and order, and its kernels transposed."""
    return lstm_of(
        *(np.array(part, np.float32).T[None] for part in (kernel, recurrent_kernel, bias))
    )


def rtneural_signal(cases, name):
    return tuple(np.loadtxt(cases / "rtneural" / f"{name}_{axis}_python.csv") for axis in "xy")


def test_rtneural_keras_layers(kernels, cases):
    first, recurrent, last = read(cases / "rtneural" / "lstm.json")["layers"]
    x, expected = rtneural_signal(cases, "lstm")
    W, b = (np.array(part) for part in first["weights"])
    hidden, _ = keras_lstm(*recurrent["weights"])(np.tanh(x[:, None] @ W + b))
    W, b = (np.array(part) for part in last["weights"])
    np.testing.assert_allclose((hidden @ W + b)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_rtneural_torch_layers(kernels, cases, kind):
    weights = read(cases / "rtneural" / f"{kind}_torch.json")
    x, expected = rtneural_signal(cases, f"{kind}_torch")
    hidden, make = x[:, None], getattr(fl, kind.upper())
    for prefix, layer in {f"{kind}.": make(1, 8), f"{kind}2.": make(8, 8, num_layers=3)}.items():
        layer.load_state_dict(
            {
                name.removeprefix(prefix): value
                for name, value in weights.items()
                if name.startswith(prefix)
            }
        )
        hidden, _ = layer(hidden)
    y = hidden @ np.array(weights["dense.weight"])[0] + weights["dense.bias"]
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_rtneural_keras_gru(kernels, cases):
    """Keras has z before r, kernels transposed, and with `reset_after` a row for each bias."""
    layers = read(cases / "rtneural" / "gru.json")["layers"]
    x, expected = rtneural_signal(cases, "gru")
    weights = [[np.array(part) for part in layer["weights"]] for layer in layers]
    (W1, b1), gru_weights, (W2, b2), (W3, b3) = weights
    gru = fl.GRU(8, 8)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    kernel, recurrent_kernel, biases = gru_weights
    blocks = (np.split(part, 3) for part in (kernel.T, recurrent_kernel.T, *biases))
    gru.load_state_dict(
        {name: np.concatenate([r, z, n]) for name, (z, r, n) in zip(names, blocks, strict=True)}
    )
    hidden, _ = gru(np.tanh(x[:, None] @ W1 + b1))
    hidden = 1 / (1 + np.exp(-(hidden @ W2 + b2)))
    np.testing.assert_allclose((hidden @ W3 + b3)[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "default",
        "go_backwards",
        "unit_forget_bias_false",
        "no_bias",
        "stateful_second_call",
        "initial_state",
        "initial_state_backwards",
        "mask",
        "mask_backwards",
    ],
)
def test_keras(kernels, cases, name):
    table = read(cases / "keras" / "keras_lstm_test_cases.json")["cases"]
    (case,) = (case for case in table if case["name"] == name)
    units, (batch, steps, features) = case["units"], case["shape"]
    bias = np.full(4 * units, 0.03 if case.get("use_bias", True) else 0.0)
    if case.get("unit_forget_bias", True) and case.get("use_bias", True):
        bias[units : 2 * units] = 1
    lstm = keras_lstm(np.full((features, 4 * units), 0.01), np.full((units, 4 * units), 0.02), bias)
    turn = -1 if case.get("go_backwards") else 1
    x = np.arange(batch * steps * features).reshape(case["shape"])[:, ::turn].transpose(1, 0, 2)
    lengths = None
    if "mask" in case:  # in walking order, every masked step comes last
        mask = np.array(case["mask"])[:, ::turn]
        assert (np.diff(mask) <= 0).all()
        lengths = mask.sum(1)
    state = (np.array([case["h0"]]), np.array([case["c0"]])) if "h0" in case else None
    for _ in range(case.get("calls", 1)):
        _, state = lstm(x, state, lengths=lengths)
    expected = case["y2d"] if "y2d" in case else np.repeat(np.c_[case["y"]], units, axis=1)
    np.testing.assert_allclose(state[0][0], expected, atol=1e-5)


def onnx(X, W, R, B=None, sequence_lens=None, initial_h=None, initial_c=None, **attributes):
    """The plain ONNX operator: Y [T, directions, B, H], Y_h and Y_c; gates in the order i,o,f,c."""
    T, rows, _ = X.shape
    directions, H = len(W), R.shape[2]

    def reordered(blocks):
        i, o, f, c = np.split(blocks, 4, axis=1)
        return np.concatenate([i, f, c, o], axis=1)

    bias = None if B is None else reordered(B[:, : 4 * H]) + reordered(B[:, 4 * H :])
    weights = [reordered(W), reordered(R), bias]
    state = None
    if initial_h is not None:
        state = initial_h, np.zeros_like(initial_h) if initial_c is None else initial_c
    backwards = attributes.get("direction") == "reverse"
    if backwards:  # the second half of a layer that reads both ways
        weights = [None if part is None else np.repeat(part, 2, axis=0) for part in weights]
        state = state and tuple(np.repeat(part, 2, axis=0) for part in state)
    y, (h, c) = lstm_of(*weights)(X, state, lengths=sequence_lens)
    y = y.reshape(T, rows, -1, H).transpose(0, 2, 1, 3)
    return {"Y": y[:, -directions:], "Y_h": h[-directions:], "Y_c": c[-directions:]}


@pytest.mark.parametrize(
    "name",
    [
        "ForwardSimpleWeightsNoBiasTwoRows#1",
        "ForwardSimpleWeightsNoBiasTwoRows#2",
        "ReverseSimpleWeightsNoBiasTwoRows#1",
        "BidirectionalSimpleWeightsNoBiasTwoRows#1",
        "MixedSequenceLengths#1",
        "MixedSequenceLengths#2",
        "MixedSequenceLengthsReverse#1",
        "MixedSequenceLengthsReverse#2",
        "BatchParallelFalseSeqLengthGreaterThanOne#1",
        "ONNXRuntime_TestLSTMForwardHiddenState#1",
        "ONNXRuntime_TestLSTMForwardCellState#1",
    ],
)
def test_onnxruntime(kernels, cases, name):
    (case,) = (case for case in read(cases / "ort" / "lstm_cases.json") if case["name"] == name)
    assert not any(case[variant] for variant in ("P", "clip", "input_forget"))
    assert set(case["activations"]) == {"sigmoid", "tanh"}
    shapes = case["shapes"] | dict.fromkeys(("initial_h", "initial_c"), case["shapes"]["initial"])
    shapes["Y_c"] = shapes["Y_h"]

    def array(key):
        return None if case[key] is None else np.reshape(case[key], shapes[key])

    inputs = {key: array(key) for key in ("X", "W", "R", "B", "initial_h", "initial_c")}
    result = onnx(**inputs, sequence_lens=case["sequence_lens"], direction=case["direction"])
    compared = [key for key in ("Y", "Y_h", "Y_c") if case[key] is not None]
    assert compared
    for key in compared:
        np.testing.assert_allclose(result[key], array(key), atol=1e-5, err_msg=key)


def fields(message):
    """(number, value) of every field of a protobuf message."""

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    at = 0
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2, "only varints and bytes occur here"
            size = varint()
            yield key >> 3, message[at : at + size]
            at += size


def tensor(path):
    """The values of a float32 TensorProto: field 1 is a dimension, 2 the type, 9 the raw data."""
    shape, raw = [], b""
    for number, value in fields(path.read_bytes()):
        if number == 1:
            shape.append(value)
        elif number == 2:
            assert value == 1, "float32"
        elif number == 9:
            raw = value
    return np.frombuffer(raw, "<f4").reshape(shape)


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("defaults", ["Y_h"]),
        ("with_initial_bias", ["Y_h"]),
        ("reverse", ["Y_h", "Y_c"]),
        ("bidirectional", ["Y_h", "Y_c"]),
        ("batchwise", ["Y", "Y_h"]),
    ],
)
def test_onnx_node(kernels, cases, name, outputs):
    folder = cases / "onnx_node" / f"test_lstm_{name}" / "test_data_set_0"
    inputs = dict(zip("XWRB", map(tensor, sorted(folder.glob("input_*.pb"))), strict=False))
    if name == "batchwise":  # layout 1: batch first, also in Y and the states
        inputs["X"] = inputs["X"].transpose(1, 0, 2)
    result = onnx(**inputs, direction=name)
    if name == "batchwise":
        result = {"Y": result["Y"].transpose(2, 0, 1, 3), "Y_h": result["Y_h"].transpose(1, 0, 2)}
    for number, key in enumerate(outputs):
        expected = tensor(folder / f"output_{number}.pb")
        np.testing.assert_allclose(result[key], expected, atol=1e-6, err_msg=key)
