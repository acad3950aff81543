"""ONNX's recurrent operators in scalar float64 Python, apart from the library.

Written from the operators' text in opset 22: LSTM with gates i, o, f, c and peepholes i, o, f; GRU
with gates z, r, h; RNN. Where a row has no step its state stays, on which the text is silent.
"""

from oracle import dot
from oracle_variants import ACTIVATIONS as FUNCTIONS

DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
SPELLING = {name.replace("_", ""): name for name in FUNCTIONS}
TAKES = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01,),
    "thresholdedrelu": (1.0,),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0,),
}


def activations(kind, directions, names=None, alphas=(), betas=()):
    """A list of functions for each direction."""
    names = names or DEFAULTS[kind] * directions
    left, made = [list(alphas), list(betas)], []
    for name in names:
        numbers = []
        for place, default in enumerate(TAKES.get(name.lower(), ())):
            numbers.append(left[place].pop(0) if left[place] else default)
        function = FUNCTIONS[SPELLING[name.lower()]]
        made.append(lambda x, function=function, numbers=numbers: function(x, *numbers))
    size = len(made) // directions
    return [made[k : k + size] for k in range(0, len(made), size)]


def cell(kind, weights, functions, clip, x, state, input_forget=0, linear_before_reset=0):
    """One step of one row."""
    W, R, bias, P = (weights.get(name) for name in ("W", "R", "B", "P"))
    H, h = len(state[0]), state[0]

    def cut(value):
        return value if clip is None else min(max(value, -clip), clip)

    def of_x(gate, unit):
        row = gate * H + unit
        return dot(W[row], x) + (bias[row] if bias else 0.0)

    def of_h(gate, unit, h=h):
        row = gate * H + unit
        return dot(R[row], h) + (bias[len(W) + row] if bias else 0.0)

    def peephole(gate, unit, c):
        return P[gate * H + unit] * c if P else 0.0

    if kind == "RNN":
        (f,) = functions
        return [[f(cut(of_x(0, unit) + of_h(0, unit))) for unit in range(H)]]
    if kind == "GRU":
        f, g = functions
        update, reset = ([f(cut(of_x(k, u) + of_h(k, u))) for u in range(H)] for k in (0, 1))
        seen = [r * value for r, value in zip(reset, h, strict=True)]
        new = []
        for unit in range(H):
            from_h = reset[unit] * of_h(2, unit) if linear_before_reset else of_h(2, unit, seen)
            value = g(cut(of_x(2, unit) + from_h))
            new.append((1 - update[unit]) * value + update[unit] * h[unit])
        return [new]
    f, g, show = functions
    new_h, new_c = [], []
    for unit, c in enumerate(state[1]):
        write = f(cut(of_x(0, unit) + of_h(0, unit) + peephole(0, unit, c)))
        keep = f(cut(of_x(2, unit) + of_h(2, unit) + peephole(2, unit, c)))
        value = g(cut(of_x(3, unit) + of_h(3, unit)))
        new_c.append(((1 - write) if input_forget else keep) * c + write * value)
        out = f(cut(of_x(1, unit) + of_h(1, unit) + peephole(1, unit, new_c[-1])))
        new_h.append(out * show(new_c[-1]))
    return [new_h, new_c]


def operator(
    kind,
    X,
    sequence_lens=None,
    initial_h=None,
    initial_c=None,
    *,
    activation_alpha=(),
    activation_beta=(),
    clip=None,
    direction="forward",
    hidden_size,
    layout=0,
    **inputs,
):
    """Y [T][D][batch][H], Y_h (and Y_c) [D][batch][H]; or [batch][T][D][H] and [batch][D][H].

    Inputs are nested lists; `inputs` are the weights and the attributes left.
    """
    names = inputs.pop("activations", None)
    weights = {name: inputs.pop(name) for name in ("W", "R", "B", "P") if name in inputs}
    walks = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}[direction]
    functions = activations(kind, len(walks), names, activation_alpha, activation_beta)
    if layout:
        X = turned(X)
        initial_h, initial_c = (part and turned(part) for part in (initial_h, initial_c))
    T, batch = len(X), len(X[0])
    zeros = [[[0.0] * hidden_size for _ in range(batch)] for _ in walks]
    initial = [initial_h or zeros, initial_c or zeros][: 2 if kind == "LSTM" else 1]
    Y = [[[[0.0] * hidden_size for _ in range(batch)] for _ in walks] for _ in range(T)]
    finals = [[[None] * batch for _ in walks] for _ in initial]
    for d, walk in enumerate(walks):
        own = {name: value[d] for name, value in weights.items()}
        for b in range(batch):
            state = [part[d][b] for part in initial]
            for t in range(T if sequence_lens is None else sequence_lens[b])[::walk]:
                state = cell(kind, own, functions[d], clip, X[t][b], state, **inputs)
                Y[t][d][b] = state[0]
            for part, value in zip(finals, state, strict=True):
                part[d][b] = value
    if layout:
        Y = [[[Y[t][d][b] for d in range(len(walks))] for t in range(T)] for b in range(batch)]
        finals = [turned(part) for part in finals]
    return Y, *finals


def turned(part):
    """The first two axes changed round."""
    return [list(row) for row in zip(*part, strict=True)]
