"""The LSTM in scalar float64 Python: slow, plain, and sharing nothing with the library.

Written from Graves 2013, "Generating sequences with recurrent neural networks", eq. 7 to 11
without the peepholes (the cell of Gers, Schmidhuber & Cummins 2000), and Sak, Senior & Beaufays
2014, eq. 6 and 7 for the projection. Arrays are nested lists; blocks of the weights stand in the
order input gate, forget gate, candidate, output gate.
"""

from math import exp, log1p, tanh


def sigmoid(a):
    return 1 / (1 + exp(-a)) if a >= 0 else exp(a) / (1 + exp(a))


ACTIVATIONS = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": lambda a: max(a, 0.0),
    "affine": lambda a, alpha=1.0, beta=0.0: alpha * a + beta,
    "leaky_relu": lambda a, alpha=0.01: a if a >= 0 else alpha * a,
    "thresholded_relu": lambda a, alpha=1.0: a if a >= alpha else 0.0,
    "scaled_tanh": lambda a, alpha=1.0, beta=1.0: alpha * tanh(beta * a),
    "hard_sigmoid": lambda a, alpha=0.2, beta=0.5: min(max(alpha * a + beta, 0.0), 1.0),
    "elu": lambda a, alpha=1.0: a if a >= 0 else alpha * (exp(a) - 1),
    "softsign": lambda a: a / (1 + abs(a)),
    "softplus": lambda a: log1p(exp(a)),
}


def dot(weights, values):
    total = 0.0
    for weight, value in zip(weights, values, strict=True):
        total += weight * value
    return total


def cell(weights, x, h, c, place=None):
    """One step of one row: the new h and c."""

    def preactivation(block, unit):
        row = block * len(c) + unit
        total = dot(weights["weight_ih"][row], x) + dot(weights["weight_hh"][row], h)
        if "bias_ih" in weights:
            total += weights["bias_ih"][row] + weights["bias_hh"][row]
        return total

    new_h, new_c = [], []
    for unit in range(len(c)):
        write = sigmoid(preactivation(0, unit))
        keep = sigmoid(preactivation(1, unit))
        value = tanh(preactivation(2, unit))
        show = sigmoid(preactivation(3, unit))
        new_c.append(keep * c[unit] + write * value)
        new_h.append(show * tanh(new_c[unit]))
    if "weight_hr" in weights:
        new_h = [dot(row, new_h) for row in weights["weight_hr"]]
    return new_h, new_c


def run(cell, parameters, x, first, lengths=None, resets=None):
    """A whole stack of cells over a batch: y [T][B][...], and each part of the last state.

    `cell(weights, x, *state, place)` returns each part of the new state; its place is (slot, t, b)
    with the slot layer * directions + side. `parameters` are under torch's names; x is [T][B][I];
    the parts of `first` and of the last state are [slot][B][...]; lengths [B]; resets [T][B].
    """
    T, B = len(x), len(first[0][0])
    last = [[[None] * B for _ in part] for part in first]
    y = [[None] * B for _ in range(T)]
    for b in range(B):
        series = [x[t][b] for t in range(T)]
        length = T if lengths is None else lengths[b]
        for layer, suffixes in enumerate(stack(parameters)):
            outputs = []
            for side, suffix in enumerate(suffixes):
                slot = layer * len(suffixes) + side
                weights = {
                    name.removesuffix(suffix): value
                    for name, value in parameters.items()
                    if name.endswith(suffix)
                }
                state = [list(part[slot][b]) for part in first]
                steps = [[0.0] * len(state[0]) for _ in range(T)]
                for t in range(length - 1, -1, -1) if side else range(length):
                    border = t + side  # a reset separates the steps border - 1 and border
                    if resets is not None and border < length and resets[border][b]:
                        state = [[0.0] * len(part) for part in state]
                    state = cell(weights, series[t], *state, (slot, t, b))
                    steps[t] = state[0]
                for part, value in zip(last, state, strict=True):
                    part[slot][b] = value
                outputs.append(steps)
            series = [[value for side in outputs for value in side[t]] for t in range(T)]
        for t in range(T):
            y[t][b] = series[t]
    return y, *last


def stack(parameters):
    """The suffixes of every layer's names, one for each direction."""
    sides = ["", "_reverse"] if "weight_ih_l0_reverse" in parameters else [""]
    layers = []
    while f"weight_ih_l{len(layers)}" in parameters:
        layers.append([f"_l{len(layers)}{side}" for side in sides])
    return layers


def lstm(parameters, x, h0, c0, lengths=None, resets=None):
    """A whole stack over a batch: y, and the last h and c."""
    return run(cell, parameters, x, (h0, c0), lengths, resets)
