"""`from_arrays`: layers under the names and in the layouts of Keras."""

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl


def keras_arrays(rng, kind, H, bias="keras", I=3):
    gates = {fl.LSTM: 4, fl.GRU: 3, fl.RNN: 1}[kind]
    shapes = {"kernel": (I, gates * H), "recurrent_kernel": (H, gates * H)}
    if bias:
        shapes["bias"] = (gates * H,) if bias == "keras" else bias
    return {name: rng.standard_normal(shape) / 2 for name, shape in shapes.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard(x, slope=0.2):
    return np.clip(slope * x + 0.5, 0, 1)


def keras_lstm(x, arrays, sigma=sigmoid):
    """Keras' LSTMCell, `keras/src/layers/rnn/lstm.py`."""
    H = len(arrays["recurrent_kernel"])
    h, c, out = np.zeros((x.shape[1], H)), np.zeros((x.shape[1], H)), []
    for x_t in x:
        z = x_t @ arrays["kernel"] + h @ arrays["recurrent_kernel"] + arrays.get("bias", 0)
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        h = sigma(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def keras_gru(x, arrays, sigma=sigmoid):
    """Keras' GRUCell, `keras/src/layers/rnn/gru.py`."""
    H = len(arrays["recurrent_kernel"])
    h, out, bias = np.zeros((x.shape[1], H)), [], arrays["bias"]
    W, R = np.split(arrays["kernel"], 3, axis=1), np.split(arrays["recurrent_kernel"], 3, axis=1)
    b = np.split(bias if bias.ndim == 1 else bias[0], 3)
    d = np.split(np.zeros(3 * H) if bias.ndim == 1 else bias[1], 3)
    for x_t in x:
        z, r = (sigma(x_t @ W[k] + b[k] + h @ R[k] + d[k]) for k in (0, 1))
        if bias.ndim == 2:  # reset_after
            candidate = np.tanh(x_t @ W[2] + b[2] + r * (h @ R[2] + d[2]))
        else:
            candidate = np.tanh(x_t @ W[2] + b[2] + (r * h) @ R[2])
        h = z * h + (1 - z) * candidate
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize(
    ("activation", "sigma"),
    [
        ("sigmoid", sigmoid),
        ("hard_sigmoid", hard),
        (("hard_sigmoid", 1 / 6, 0.5), lambda x: hard(x, 1 / 6)),
    ],
    ids=["sigmoid", "hard_sigmoid", "hard_sigmoid of Keras 3"],
)
@pytest.mark.parametrize("names", ["{}", "lstm/lstm_cell_3/{}:0"])
@pytest.mark.parametrize("variant", ["lstm", "no bias", "reset after", "reset before"])
def test_keras_layers(rng, activation, sigma, names, variant):
    H, x = 4, rng.standard_normal((6, 2, 3))
    if variant in ("lstm", "no bias"):
        arrays = keras_arrays(rng, fl.LSTM, H, "keras" if variant == "lstm" else None)
        expected = keras_lstm(x, arrays, sigma)
    else:
        bias = (2, 3 * H) if variant == "reset after" else "keras"
        arrays = keras_arrays(rng, fl.GRU, H, bias)
        expected = keras_gru(x, arrays, sigma)
    named = {names.format(name): array for name, array in arrays.items()}
    with pytest.raises(ValueError, match="recurrent_activation: expected as an argument"):
        fl.from_arrays(named)
    layer = fl.from_arrays(named, recurrent_activation=activation)
    np.testing.assert_allclose(layer(x)[0], expected, rtol=0, atol=1e-14)
    assert layer.bias == {"no bias": False, "reset after": True}.get(variant, "single")


def test_keras_simple_rnn(rng):
    arrays, x = keras_arrays(rng, fl.RNN, 4), rng.standard_normal((6, 2, 3))
    with pytest.raises(ValueError, match="nonlinearity: expected as an argument"):
        fl.from_arrays(arrays)
    h, expected = np.zeros((2, 4)), []
    for x_t in x:
        h = np.tanh(x_t @ arrays["kernel"] + arrays["bias"] + h @ arrays["recurrent_kernel"])
        expected.append(h)
    y, _ = fl.from_arrays(arrays, nonlinearity="tanh")(x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-14)


def test_keras_bidirectional(rng):
    both = [keras_arrays(rng, fl.LSTM, 4) for _ in range(2)]
    cells = ("forward_lstm_1/lstm_cell_5", "backward_lstm_1/lstm_cell_6")
    named = {
        f"bidirectional_1/{cell}/{name}:0": array
        for cell, arrays in zip(cells, both, strict=True)
        for name, array in arrays.items()
    }
    x = rng.standard_normal((6, 2, 3))
    layer = fl.from_arrays(named, "bidirectional_1/", recurrent_activation="sigmoid")
    assert layer.bidirectional
    halves = keras_lstm(x, both[0]), keras_lstm(x[::-1], both[1])[::-1]
    np.testing.assert_allclose(layer(x)[0], np.concatenate(halves, axis=2), rtol=0, atol=1e-14)
    forward = {name: array for name, array in named.items() if "forward" in name}
    assert not fl.from_arrays(forward, recurrent_activation="sigmoid").bidirectional
    missing = {name: array for name, array in named.items() if "lstm_cell_6/bias" not in name}
    with pytest.raises(ValueError, match="lstm_cell_6/bias:0: expected an array, got none"):
        fl.from_arrays(missing, recurrent_activation="sigmoid")


def test_cudnn_layers(rng):
    """Of CuDNNLSTM, W of a gate has [H, I] in C's order under the shape [I, H]; two biases."""
    H, I = 4, 3
    weight_ih, weight_hh = rng.standard_normal((4 * H, I)), rng.standard_normal((4 * H, H))
    arrays = {
        "kernel": np.hstack([W.reshape(I, H) for W in np.split(weight_ih, 4)]),
        "recurrent_kernel": np.hstack(np.split(weight_hh, 4)),
        "bias": rng.standard_normal(8 * H),
    }
    layer = fl.from_arrays({f"cu_dnnlstm/{name}:0": array for name, array in arrays.items()})
    assert_same_bits(layer.weight_ih_l0, weight_ih)
    assert_same_bits(layer.weight_hh_l0, weight_hh)
    assert_same_bits(np.hstack([layer.bias_ih_l0, layer.bias_hh_l0]), arrays["bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": None}, "gru/kernel:0: expected an array, got none"),
        ({"kernel": np.ones((3, 13))}, "gru/kernel:.* expected 12 columns"),
        ({"recurrent_kernel": np.ones((4, 13))}, "gru/recurrent_kernel:0: .*4, 3 or 1 times"),
        ({"recurrent_kernel": np.ones(4)}, "gru/recurrent_kernel:0: expected a matrix"),
        ({"bias": np.ones(13)}, "gru/bias:.* expected shape"),
        ({"bias": None}, "reset_after: expected as an argument"),
    ],
    ids=lambda part: str(list(part)) if isinstance(part, dict) else "",
)
def test_bad_keras_arrays(rng, change, message):
    arrays = keras_arrays(rng, fl.GRU, 4) | change
    named = {f"gru/{name}:0": array for name, array in arrays.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        fl.from_arrays(named, recurrent_activation="sigmoid")


def test_a_gru_of_keras_without_bias(rng):
    arrays = keras_arrays(rng, fl.GRU, 4, None)
    for after in (True, False):
        layer = fl.from_arrays(arrays, recurrent_activation="sigmoid", reset_after=after)
        assert layer.linear_before_reset is after
        assert layer.bias is False
    arrays["bias"] = np.ones(12)
    with pytest.raises(ValueError, match="reset_after: expected None"):
        fl.from_arrays(arrays, recurrent_activation="sigmoid", reset_after=False)


def test_arrays_of_tensorflow_1_are_refused(rng):
    """They have one kernel, another order of gates, and a bias without its forget bias."""
    arrays = {"kernel": rng.standard_normal((7, 16)), "bias": np.zeros(16)}
    named = {f"rnn/basic_lstm_cell/{name}:0": array for name, array in arrays.items()}
    with pytest.raises(ValueError, match=r"expected the names .*see fastlstm\.interop\.tensorflow"):
        fl.from_arrays(named, recurrent_activation="sigmoid")
