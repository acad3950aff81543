"""Arrays of TensorFlow 1 and TensorFlow Lite against loops in their own layouts."""

import itertools

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.interop import tensorflow, tflite

T, B = 7, 3


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def basic_lstm(x, kernel, bias, forget_bias):
    """`BasicLSTMCell.call`, step by step."""
    h = c = np.zeros((x.shape[1], kernel.shape[1] // 4))
    y = []
    for step in x:
        i, j, f, o = np.split(np.concatenate([step, h], axis=1) @ kernel + bias, 4, axis=1)
        c = c * sigmoid(f + forget_bias) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
        y.append(h)
    return np.array(y), h, c


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, -0.5])
def test_basic_lstm_cell(rng, dtype, forget_bias):
    for I, H in [(3, 5), (4, 4), (6, 2), (1, 7)]:
        kernel = rng.uniform(-0.9, 0.9, (I + H, 4 * H)).astype(dtype)
        bias = rng.uniform(-0.9, 0.9, 4 * H).astype(dtype)
        x = rng.standard_normal((T, B, I)).astype(dtype)
        expected, h, c = basic_lstm(x, kernel, bias, forget_bias)
        lstm = tensorflow.lstm(kernel, bias, forget_bias=forget_bias)
        y, (last_h, last_c) = lstm(x)
        assert lstm.bias == "single"
        assert y.dtype == dtype
        tolerance = 1e-6 if dtype == np.float32 else 1e-13
        for result, wanted in ((y, expected), (last_h[0], h), (last_c[0], c)):
            np.testing.assert_allclose(result, wanted, atol=tolerance)
        first = tensorflow.lstm(kernel, bias, forget_bias=forget_bias, batch_first=True)
        np.testing.assert_array_equal(first(x.swapaxes(0, 1))[0].swapaxes(0, 1), y)
    default = tensorflow.lstm(kernel, bias).bias_ih_l0
    np.testing.assert_array_equal(default, tensorflow.lstm(kernel, bias, forget_bias=1).bias_ih_l0)


@pytest.mark.parametrize("kind", [int, np.uint8, bool])
def test_a_bias_of_integers_takes_any_forget_bias(kind):
    made = tensorflow.lstm(np.ones((8, 20)), np.zeros(20, kind), forget_bias=-0.5)
    expected = tensorflow.lstm(np.ones((8, 20)), np.zeros(20), forget_bias=-0.5)
    np.testing.assert_array_equal(made.bias_ih_l0, expected.bias_ih_l0)
    assert (made.bias_ih_l0[5:10] == -0.5).all()


def test_what_tensorflow_refuses():
    for shape in [(8, 19), (5, 20), (4, 20), (8,), (8, 0), (0, 0)]:
        with pytest.raises(ValueError, match="kernel: expected shape"):
            tensorflow.lstm(np.zeros(shape), np.zeros(20))
    with pytest.raises(ValueError, match=r"bias: expected shape \(20,\), got \(5,\)"):
        tensorflow.lstm(np.zeros((8, 20)), np.zeros(5))
    with pytest.raises(TypeError, match="kernel: "):
        tensorflow.lstm(np.zeros((8, 20), complex), np.zeros(20))
    for bad in (np.nan, np.inf, "1", None):
        with pytest.raises((ValueError, TypeError), match="forget_bias: "):
            tensorflow.lstm(np.zeros((8, 20)), np.zeros(20), forget_bias=bad)


def lite(x, a, H, P):
    """lstm_eval.cc of TensorFlow Lite, step by step; `a` has arrays by name."""
    h, c, y = np.zeros((x.shape[1], P)), np.zeros((x.shape[1], H)), []
    coupled = "W_i" not in a

    def gate(name, step, seen):
        return (
            step @ a[f"W_{name}"].T
            + h @ a[f"R_{name}"].T
            + a.get(f"P_{name}", 0) * seen
            + a[f"b_{name}"]
        )

    for step in x:
        f = sigmoid(gate("f", step, c))
        i = 1 - f if coupled else sigmoid(gate("i", step, c))
        c = f * c + i * np.tanh(gate("c", step, c))
        h = sigmoid(gate("o", step, c)) * np.tanh(c)
        if "W_projection" in a:
            h = h @ a["W_projection"].T
        y.append(h)
    return np.array(y)


def operator(rng, I, H, P=None, coupled=False, peepholes=False):
    gates = "fco" if coupled else "ifco"
    shapes = {"W": (H, I), "R": (H, P or H), "b": (H,)}
    shapes = {f"{part}_{gate}": shapes[part] for part in "WRb" for gate in gates}
    if peepholes:
        shapes |= {f"P_{gate}": (H,) for gate in gates if gate != "c"}
    if P:
        shapes["W_projection"] = (P, H)
    return {n: rng.uniform(-0.9, 0.9, shape).astype(np.float32) for n, shape in shapes.items()}


def test_operators_of_tflite(rng):
    for P, coupled, peepholes in itertools.product((None, 2), (False, True), (False, True)):
        arrays = operator(rng, 3, 5, P, coupled, peepholes)
        x = rng.standard_normal((T, B, 3)).astype(np.float32)
        lstm = tflite.lstm(arrays)
        assert (lstm.coupled, lstm.peepholes, lstm.proj_size) == (coupled, peepholes, P or 0)
        y, _ = lstm(x)
        np.testing.assert_allclose(y, lite(x, arrays, 5, P or 5), atol=1e-6)
        inputs = [x, *(arrays.get(name) for name in tflite.NAMES[1:18]), *x[:2], *[None] * 4]
        for given in (inputs, inputs[:20], {**arrays, "x": x, "W_i": arrays.get("W_i")}):
            np.testing.assert_array_equal(tflite.lstm(given)(x)[0], y)
        found = fl.from_arrays({**arrays, "x": x, "dense_W": x[0]})
        np.testing.assert_array_equal(found(x)[0], y)
        zeros = {"b_projection": np.zeros(2, np.float32)} if P else {}
        first = tflite.lstm({**arrays, **zeros}, batch_first=True)
        np.testing.assert_array_equal(first(x.swapaxes(0, 1))[0].swapaxes(0, 1), y)


def test_a_layer_of_tflite_trains(rng):
    for coupled in (False, True):
        lstm = tflite.lstm(operator(rng, 3, 5, coupled=coupled))
        (y, _), tape = lstm.forward(rng.standard_normal((T, B, 3)))
        fl.optim.SGD(0.1).step(lstm, lstm.backward(tape, y))
        assert not lstm.bias_hh_l0.any()


def test_the_order_of_inputs():
    """tensorflow/lite/kernels/lstm_shared.h."""
    places = {
        1: "W_i", 2: "W_f", 3: "W_c", 4: "W_o", 5: "R_i", 6: "R_f", 7: "R_c", 8: "R_o",
        9: "P_i", 10: "P_f", 11: "P_o", 12: "b_i", 13: "b_f", 14: "b_c", 15: "b_o",
        16: "W_projection", 17: "b_projection", 18: "h", 19: "c",
        20: "N_i", 21: "N_f", 22: "N_c", 23: "N_o",
    }  # fmt: skip
    assert dict(enumerate(tflite.NAMES)) == {0: "x", **places}


def test_what_tflite_refuses(rng):
    own = operator(rng, 3, 5)

    def refused(message, error=ValueError, without=(), arrays=own, options=(), **changes):
        changed = {n: a for n, a in (arrays | changes).items() if n not in without}
        with pytest.raises(error, match=message):
            tflite.lstm(changed, **dict(options))

    refused("N_f: expected none, since its layer norm", N_f=np.ones(5, np.float32))
    refused("cell_clip: expected 0", options={"cell_clip": 3})
    refused("proj_clip: expected 0", options={"proj_clip": 0.5})
    refused("W_f: expected floats, got dtype int8", TypeError, W_f=own["W_f"].astype(np.int8))
    refused(r"arrays: missing \['R_i'\]", without=["R_i"])
    refused(r"arrays: missing \[\], without .* \['R_i', 'b_i'\]", without=["W_i"])
    refused(r"arrays: missing \['P_f', 'P_o'\]", P_i=np.ones(5, np.float32))
    refused(r"arrays: missing \['W_f'\]", without=["W_f"])
    refused("arrays: expected names of .* got also .*'kernel'", kernel=own["W_f"])
    refused(r"R_c: expected shape \(5, 5\), got \(5, 4\)", R_c=own["R_c"][:, :4])
    refused(r"W_o: expected shape \(5, 3\), got \(4, 3\)", W_o=own["W_o"][:4])
    projected = operator(rng, 3, 5, 2)
    refused("b_projection: expected zeros", arrays=projected, b_projection=np.ones(2, np.float32))
    refused(
        r"W_projection: expected shape \(2, 5\)", arrays=projected, W_projection=np.ones((2, 4))
    )
    with pytest.raises(ValueError, match=r"W_f: expected a matrix, got shape \(\)"):
        tflite.lstm(operator(rng, 3, 5) | {"W_f": np.float32(1)})
    with pytest.raises(ValueError, match="arrays: expected 20 or 24 inputs, got 5"):
        tflite.lstm([None] * 5)
    with pytest.raises(TypeError, match="arrays: expected a sequence or a mapping, got str"):
        tflite.lstm("model.tflite")


def test_case_of_tflite(cases):
    z = np.load(cases / "models/tflite-mnist-lstm/case.npz")
    lstm = fl.from_arrays(z, batch_first=True)
    flat = lstm(z["x"])[0].reshape(10, -1)
    y = fl.Activation("softmax")(flat @ z["dense_W"].T + z["dense_b"])
    np.testing.assert_allclose(y, z["y"], atol=5e-6)
