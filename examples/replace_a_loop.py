"""A NumPy project's own recurrent loop, and the layer that takes its place and its arrays.

The loop is in the manner of madmom's beat trackers: three layers of LSTMs with peepholes, each in
both directions, of gates that are objects.
"""

import sys
import time
from types import SimpleNamespace

import numpy as np

import fastlstm as fl


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def loop(gates, x):
    i, f, _, o = gates
    h = c = np.zeros(len(i.bias), np.float32)
    outputs = []
    for step in x:
        z_i, z_f, z_g, z_o = (step @ gate.W + h @ gate.R + gate.bias for gate in gates)
        c = sigmoid(z_f + f.peephole * c) * c + sigmoid(z_i + i.peephole * c) * np.tanh(z_g)
        h = sigmoid(z_o + o.peephole * c) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def layer_of(gates, layers, I, H):
    lstm = fl.LSTM(I, H, layers, bias="single", bidirectional=True, peepholes=True)
    arrays = lstm.state_dict()  # its second bias is zero
    for end, (i, f, g, o) in gates.items():
        arrays["weight_ih" + end] = np.hstack([i.W, f.W, g.W, o.W]).T
        arrays["weight_hh" + end] = np.hstack([i.R, f.R, g.R, o.R]).T
        arrays["bias_ih" + end] = np.hstack([i.bias, f.bias, g.bias, o.bias])
        arrays["weight_peephole" + end] = np.hstack([i.peephole, f.peephole, o.peephole])
    lstm.load_state_dict(arrays)
    return lstm


rng, I, H, layers = np.random.default_rng(0), 266, 25, 3
x = rng.standard_normal((300 if "--quick" in sys.argv else 6000, I)).astype(np.float32)
gates = {}
for k in range(layers):
    shapes = {"W": (2 * H if k else I, H), "R": (H, H), "bias": H, "peephole": H}
    for end in (f"_l{k}", f"_l{k}_reverse"):
        arrays = [{n: rng.normal(0, 0.1, s).astype("f") for n, s in shapes.items()} for _ in "ifgo"]
        gates[end] = [SimpleNamespace(**each) for each in arrays]

start, expected = time.perf_counter(), x
for k in range(layers):
    backward = loop(gates[f"_l{k}_reverse"], expected[::-1])[::-1]
    expected = np.hstack([loop(gates[f"_l{k}"], expected), backward])
between, (y, _) = time.perf_counter(), layer_of(gates, layers, I, H)(x)
print(f"loop: {between - start:.3f} s, layer: {time.perf_counter() - between:.3f} s")
assert np.abs(y - expected).max() < 1e-5, "expected the same outputs"
