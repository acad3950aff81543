"""The LSTM in scalar float64 Python: slow, plain, and sharing nothing with the library.

Written from Graves 2013, "Generating sequences with recurrent neural networks", eq. 7 to 11
without the peepholes (the cell of Gers, Schmidhuber & Cummins 2000), and Sak, Senior & Beaufays
2014, eq. 6 and 7 for the projection. Arrays are nested lists; blocks of the weights stand in the
order input gate, forget gate, candidate, output gate.
"""

from math import exp, tanh


def sigmoid(a):
    return 1 / (1 + exp(-a)) if a >= 0 else exp(a) / (1 + exp(a))


def dot(weights, values):
    total = 0.0
    for weight, value in zip(weights, values, strict=True):
        total += weight * value
    return total


def cell(weights, x, h, c):
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


def direction(weights, x, h0, c0, length, cut, backwards):
    """One row through one layer in one direction: h of every step, the last h and c."""
    h, c = list(h0), list(c0)
    y = [[0.0] * len(h) for _ in x]
    order = range(length - 1, -1, -1) if backwards else range(length)
    for t in order:
        border = t + 1 if backwards else t  # a reset separates the steps border - 1 and border
        if border < length and cut[border]:
            h, c = [0.0] * len(h), [0.0] * len(c)
        h, c = cell(weights, x[t], h, c)
        y[t] = h
    return y, h, c


def lstm(parameters, x, h0, c0, lengths=None, resets=None):
    """A whole stack over a batch.

    `parameters` under torch's names; x [T][B][I]; h0 [layers * directions][B][P];
    c0 [layers * directions][B][H]; lengths [B]; resets [T][B].
    Returns y [T][B][directions * P], and the last h and c, shaped as the first.
    """
    T, B = len(x), len(h0[0])
    h_n = [[None] * B for _ in h0]
    c_n = [[None] * B for _ in c0]
    y = [[None] * B for _ in range(T)]
    for b in range(B):
        series = [x[t][b] for t in range(T)]
        length = T if lengths is None else lengths[b]
        cut = [resets is not None and resets[t][b] for t in range(T)]
        for layer, suffixes in enumerate(stack(parameters)):
            outputs = []
            for side, suffix in enumerate(suffixes):
                slot = layer * len(suffixes) + side
                weights = {
                    name.removesuffix(suffix): value
                    for name, value in parameters.items()
                    if name.endswith(suffix)
                }
                steps, h_n[slot][b], c_n[slot][b] = direction(
                    weights, series, h0[slot][b], c0[slot][b], length, cut, side == 1
                )
                outputs.append(steps)
            series = [[value for side in outputs for value in side[t]] for t in range(T)]
        for t in range(T):
            y[t][b] = series[t]
    return y, h_n, c_n


def stack(parameters):
    """The suffixes of every layer's names, one for each direction."""
    sides = ["", "_reverse"] if "weight_ih_l0_reverse" in parameters else [""]
    layers = []
    while f"weight_ih_l{len(layers)}" in parameters:
        layers.append([f"_l{len(layers)}{side}" for side in sides])
    return layers
