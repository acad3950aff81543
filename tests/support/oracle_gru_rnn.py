"""The GRU and the plain recurrent network in scalar float64 Python, apart from the library.

The GRU is that of ONNX's operator (opset 22), whose two forms are the published one of Cho et al.
2014 (eq. 5 to 8, with z and 1 - z changing places) and `linear_before_reset`; clip and activations
are ONNX's too. Arrays are nested lists; blocks of the weights stand in torch's order: reset gate,
update gate, candidate.
"""

from oracle import ACTIVATIONS, dot, run


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
    """A whole stack of `cell`s over a batch: y, and the last h."""

    def step(weights, x, h, place):
        return [cell(weights, x, h, **options)]

    return run(step, parameters, x, [h0], lengths, resets)
