"""Files of audio effects and of RNNoise as their own projects write them, with random numbers.

Each function returns what stands in the file, and one that computes in the file's own layout, step
by step, in float64.
"""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def relu(z):
    return np.maximum(z, 0)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def elu(z):
    return np.where(z > 0, z, np.expm1(z))


FUNCTIONS = {
    "": lambda z: z, "tanh": np.tanh, "sigmoid": sigmoid, "relu": relu, "softmax": softmax,
    "elu": elu,
}  # fmt: skip


def drawn(rng, *shape):
    return rng.uniform(-0.9, 0.9, shape).astype(np.float32).astype(np.float64)


def nam(rng, I, H, layers, outputs):
    cells = [
        (drawn(rng, 4 * H, (H if k else I) + H), drawn(rng, 4 * H), drawn(rng, H), drawn(rng, H))
        for k in range(layers)
    ]
    head = drawn(rng, outputs, H), drawn(rng, outputs)
    numbers = np.concatenate([a.ravel() for arrays in (*cells, head) for a in arrays])
    sizes = {"input_size": I, "hidden_size": H, "num_layers": layers}
    if outputs > 1:
        sizes |= {"in_channels": I, "out_channels": outputs}
    file = {
        "version": "0.5.4", "metadata": {"name": "amp", "loudness": -18.5}, "architecture": "LSTM",
        "config": sizes, "weights": numbers.tolist(), "sample_rate": 48000.0,
    }  # fmt: skip

    def run(x):
        states = [(h.copy(), c.copy()) for _, _, h, c in cells]
        y = []
        for step in x:
            for k, (W, b, _, _) in enumerate(cells):
                h, c = states[k]
                i, f, g, o = np.split(W @ np.concatenate([step, h]) + b, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                step = sigmoid(o) * np.tanh(c)
                states[k] = step, c
            y.append(head[0] @ step + head[1])
        return np.array(y)

    return file, run


def keras_lstm(x, kernel, recurrent, bias):
    h = c = np.zeros(len(recurrent))
    y = []
    for step in x:
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        y.append(h)
    return np.array(y)


def keras_gru(x, kernel, recurrent, bias):
    h, y = np.zeros(len(recurrent)), []
    for step in x:
        xz, xr, xh = np.split(step @ kernel + bias[0], 3)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3)
        z = sigmoid(xz + hz)
        h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh)
        y.append(h)
    return np.array(y)


def rtneural(rng, I, *plan, **more):
    """`plan` has (type, size, activation) for each layer."""
    layers, steps, size = [], [], I
    for kind, width, activation in plan:
        width = width or size
        if kind == "lstm":
            arrays = (
                drawn(rng, size, 4 * width),
                drawn(rng, width, 4 * width),
                drawn(rng, 4 * width),
            )
            steps.append(lambda x, a=arrays: keras_lstm(x, *a))
        elif kind == "gru":
            arrays = (
                drawn(rng, size, 3 * width),
                drawn(rng, width, 3 * width),
                drawn(rng, 2, 3 * width),
            )
            steps.append(lambda x, a=arrays: keras_gru(x, *a))
        else:
            arrays = () if kind == "activation" else (drawn(rng, size, width), drawn(rng, width))
            steps.append(
                lambda x, a=arrays, f=activation: FUNCTIONS[f](x @ a[0] + a[1] if a else x)
            )
        weights = [array.tolist() for array in arrays]
        shape = [None, None, width]
        layers.append({"type": kind, "activation": activation, "shape": shape, "weights": weights})
        size = width

    def run(x):
        for step in steps:
            x = step(x)
        return x

    return {"in_shape": [None, None, I], "layers": layers, **more}, run


def proteus(rng, kind, I, H, layers, outputs, skip, bias=True):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    state = {}
    for k in range(layers):
        state[f"rec.weight_ih_l{k}"] = drawn(rng, gates * H, H if k else I)
        state[f"rec.weight_hh_l{k}"] = drawn(rng, gates * H, H)
        state[f"rec.bias_ih_l{k}"] = drawn(rng, gates * H)
        state[f"rec.bias_hh_l{k}"] = drawn(rng, gates * H)
    state["lin.weight"] = drawn(rng, outputs, H)
    if bias:
        state["lin.bias"] = drawn(rng, outputs)
    said = {
        "model": "SimpleRNN", "input_size": I, "skip": skip, "output_size": outputs,
        "unit_type": kind, "num_layers": layers, "hidden_size": H, "bias_fl": bias,
    }  # fmt: skip
    arrays = {name: array.tolist() for name, array in state.items()}

    def layer(k, x):
        h = c = np.zeros(H)
        y = []
        for step in x:
            of_x = state[f"rec.weight_ih_l{k}"] @ step + state[f"rec.bias_ih_l{k}"]
            of_h = state[f"rec.weight_hh_l{k}"] @ h + state[f"rec.bias_hh_l{k}"]
            if kind == "LSTM":
                i, f, g, o = np.split(of_x + of_h, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            elif kind == "GRU":
                (xr, xz, xn), (hr, hz, hn) = np.split(of_x, 3), np.split(of_h, 3)
                z = sigmoid(xz + hz)
                h = z * h + (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn)
            else:
                h = np.tanh(of_x + of_h)
            y.append(h)
        return np.array(y)

    def run(x):
        y = x
        for k in range(layers):
            y = layer(k, y)
        y = y @ state["lin.weight"].T + state.get("lin.bias", 0)
        return y + x[:, :skip] if skip else y

    return {"model_data": said, "state_dict": arrays}, run


DENSE = "input_dense", "denoise_output", "vad_output"
NUMBERS = {"tanh": 0, "sigmoid": 1, "relu": 2}


def rnnoise(rng, F, sizes, bands, activations):
    """`sizes` has the widths of the dense layer and of the three GRUs."""
    d, v, n, g = sizes
    plan = {
        "input_dense": (F, d), "vad_gru": (d, v), "noise_gru": (d + v + F, n),
        "denoise_gru": (v + n + F, g), "denoise_output": (g, bands), "vad_output": (v, 1),
    }  # fmt: skip
    arrays, lines = {}, ["rnnoise-nu model file version 1"]
    for name, (I, H) in plan.items():
        parts = {"weights": (I, H), "bias": (H,)}
        if name not in DENSE:
            parts = {"weights": (I, 3 * H), "recurrent": (H, 3 * H), "bias": (3 * H,)}
        lines.append(f"{I} {H} {NUMBERS[activations[name]]}")
        for part, shape in parts.items():
            arrays[f"{name}.{part}"] = array = rng.integers(-128, 128, shape).astype(np.int8)
            lines.append(" ".join(map(str, array.ravel().tolist())))
    value = {name: array / 256 for name, array in arrays.items()}
    call = {name: FUNCTIONS[activations[name]] for name in plan}

    def dense(name, x):
        return call[name](x @ value[f"{name}.weights"] + value[f"{name}.bias"])

    def gru(name, x, h):
        Wz, Wr, Wh = np.split(value[f"{name}.weights"], 3, axis=1)
        Rz, Rr, Rh = np.split(value[f"{name}.recurrent"], 3, axis=1)
        bz, br, bh = np.split(value[f"{name}.bias"], 3)
        z = sigmoid(x @ Wz + h @ Rz + bz)
        r = sigmoid(x @ Wr + h @ Rr + br)
        return z * h + (1 - z) * call[name](x @ Wh + (r * h) @ Rh + bh)

    def run(x, state=None):
        hv, hn, hg = state or (np.zeros(v), np.zeros(n), np.zeros(g))
        gains, vad = [], []
        for step in x:
            first = dense("input_dense", step)
            hv = gru("vad_gru", first, hv)
            hn = gru("noise_gru", np.concatenate([first, hv, step]), hn)
            hg = gru("denoise_gru", np.concatenate([hv, hn, step]), hg)
            gains.append(dense("denoise_output", hg))
            vad.append(dense("vad_output", hv))
        return np.array(gains), np.array(vad)

    return "\n".join(lines) + "\n", arrays, run
