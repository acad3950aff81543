"""Numbers that other projects published for their layers; ONNX's have a test of their own."""

import json

import numpy as np
import pytest

import fastlstm as fl


def read(path):
    return json.loads(path.read_text())


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


def keras_lstm(kernel, recurrent_kernel, bias, **options):
    """Keras has the same gates and order, and its kernels transposed."""
    W, R, b = (np.array(part, np.float32).T for part in (kernel, recurrent_kernel, bias))
    rows, features = W.shape
    lstm = fl.LSTM(features, rows // 4, **options)
    arrays = {"weight_ih": W, "weight_hh": R, "bias_ih": b, "bias_hh": np.zeros(rows)}
    lstm.load_state_dict({f"{name}_l0": array for name, array in arrays.items()})
    return lstm


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


KERAS_GATES = ("hard_sigmoid", "tanh", "tanh")  # 0.2 x + 0.5 in [0, 1], as in ONNX


@pytest.mark.parametrize(
    ("number", "backwards", "whole", "activations"),
    [
        (0, False, False, KERAS_GATES),
        (1, False, False, ("sigmoid", "sigmoid", "sigmoid")),
        (2, False, True, KERAS_GATES),
        (3, True, False, KERAS_GATES),
        (4, True, True, KERAS_GATES),
    ],
)
def test_keras_js(kernels, cases, number, backwards, whole, activations):
    """One sequence; what Keras gives of one read backwards begins with the last step."""
    case = read(cases / "keras-js" / "LSTM.json")[f"recurrent.LSTM.{number}"]

    def array(part):
        return np.reshape(part["data"], part["shape"])

    lstm = keras_lstm(*map(array, case["weights"]), activations=activations)
    y, _ = lstm(array(case["input"])[:: -1 if backwards else 1])
    np.testing.assert_allclose(y if whole else y[-1], array(case["expected"]), atol=1e-5)


def test_training(kernels, cases, dtype):
    """Two steps of gradient descent on 5 rows of 3 steps, from weights of zero."""
    case = read(cases / "training.json")
    I, H = case["input_size"], case["hidden_size"]
    lstm = fl.LSTM(I, H, bias=False, activations=KERAS_GATES, dtype=dtype)
    dense = fl.Linear(H, 1, bias=False, dtype=dtype)
    lstm.load_state_dict({name: 0 * array for name, array in lstm.state_dict().items()})
    dense.load_state_dict({"weight": np.ones((1, H))})
    steps = [fl.optim.SGD(lr=case["learning_rate"]) for _ in range(2)]
    for _ in range(case["sgd_steps"]):
        (_, (h, c)), tape = lstm.forward(np.ones((3, 5, I)))
        pred, dense_tape = dense.forward(h[0])
        _, dpred = fl.losses.mse(pred, np.ones((5, 1)))
        dense_grads = dense.backward(dense_tape, dpred)
        grads = lstm.backward(tape, dstate=(dense_grads.x[None], np.zeros_like(c)))
        steps[0].step(lstm, grads)
        steps[1].step(dense, dense_grads)
    kernel = np.repeat(np.c_[case["kernel_row"]], I, axis=1)
    np.testing.assert_allclose(lstm.weight_ih_l0, kernel, atol=1e-5)
    np.testing.assert_allclose(lstm.weight_hh_l0, np.c_[case["recurrent_row"]], atol=1e-5)
    np.testing.assert_allclose(dense.weight, [[case["dense"]]], atol=1e-5)
