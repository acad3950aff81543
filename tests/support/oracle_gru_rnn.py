"""The GRU and the plain recurrent network in scalar float64 Python, apart from the library.

The GRU is that of ONNX's operator (opset 22), whose two forms are the published one of Cho et al.
2014 (eq. 5 to 8, with z and 1 - z changing places) and `linear_before_reset`; clip and activations
are ONNX's too. Arrays are nested lists; blocks of the weights stand in torch's order: reset gate,
update gate, candidate.
"""

from math import exp, log1p, tanh

from oracle import dot, sigmoid, stack

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


def function(activation, clip):
    """What an activation's name, or (name, alpha, beta), makes of a number."""
    name, *numbers = (activation,) if isinstance(activation, str) else activation
    if clip is None:
        return lambda a: ACTIVATIONS[name](a, *numbers)
    return lambda a: ACTIVATIONS[name](min(max(a, -clip), clip), *numbers)


def rnn_cell(weights, x, h, nonlinearity="tanh", clip=None):
    activate = function(nonlinearity, clip)
    new = []
    for unit in range(len(h)):
        total = dot(weights["weight_ih"][unit], x) + dot(weights["weight_hh"][unit], h)
        new.append(
            activate(total + bias(weights, "bias_ih", unit) + bias(weights, "bias_hh", unit))
        )
    return new


def gru_cell(weights, x, h, linear_before_reset=True, activations=("sigmoid", "tanh"), clip=None):
    gate, candidate = (function(activation, clip) for activation in activations)
    H = len(h)

    def from_input(block, unit):
        row = block * H + unit
        return dot(weights["weight_ih"][row], x) + bias(weights, "bias_ih", row)

    def from_state(block, unit, state):
        row = block * H + unit
        return dot(weights["weight_hh"][row], state) + bias(weights, "bias_hh", row)

    reset = [gate(from_input(0, unit) + from_state(0, unit, h)) for unit in range(H)]
    update = [gate(from_input(1, unit) + from_state(1, unit, h)) for unit in range(H)]
    shown = [r * state for r, state in zip(reset, h, strict=True)]
    new = []
    for unit in range(H):
        if linear_before_reset:
            recurrent = reset[unit] * from_state(2, unit, h)
        else:
            recurrent = from_state(2, unit, shown)
        value = candidate(from_input(2, unit) + recurrent)
        new.append((1 - update[unit]) * value + update[unit] * h[unit])
    return new


def bias(weights, name, row):
    return weights[name][row] if name in weights else 0.0


def recurrent(cell, parameters, x, h0, lengths=None, resets=None, **options):
    """A whole stack of `cell`s over a batch.

    `parameters` under torch's names; x [T][B][I]; h0 [layers * directions][B][H]; lengths [B];
    resets [T][B]. Returns y [T][B][directions * H], and the last h, shaped as the first.
    """
    T, B = len(x), len(h0[0])
    h_n = [[None] * B for _ in h0]
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
                h = list(h0[slot][b])
                steps = [[0.0] * len(h) for _ in range(T)]
                for t in range(length - 1, -1, -1) if side else range(length):
                    border = t + side  # a reset separates the steps border - 1 and border
                    if resets is not None and border < length and resets[border][b]:
                        h = [0.0] * len(h)
                    h = steps[t] = cell(weights, series[t], h, **options)
                h_n[slot][b] = h
                outputs.append(steps)
            series = [[value for side in outputs for value in side[t]] for t in range(T)]
        for t in range(T):
            y[t][b] = series[t]
    return y, h_n
