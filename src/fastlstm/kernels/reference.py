"""The NumPy twin: the LSTM as a person reads it, and what runs where nothing was compiled.

A plain recurrent network rewrites its whole memory at every step, so a gradient sent back through
T steps is multiplied T times by the recurrent weights and vanishes or explodes. The LSTM keeps its
memory in a *cell state* c instead, which is only ever scaled and added to, under the control of
gates, each a vector in (0, 1) computed from the input x and the previous output h:

- the **forget gate** f, "what to remember": how much of each cell is kept;
- the **input gate** i, "what to save": how much of each candidate is written;
- the **candidate** g (input modulation gate): what could be written. It is a tanh, not a sigmoid,
  so that a cell can also go down;
- the **output gate** o, "what to focus on": how much of each cell is shown as h.

    i = sigmoid(W_i x + R_i h + b_i)
    f = sigmoid(W_f x + R_f h + b_f)
    g =    tanh(W_g x + R_g h + b_g)
    o = sigmoid(W_o x + R_o h + b_o)
    c' = f * c + i * g
    h' = o * tanh(c')

The self-connection of the cell, c' = f * c + ..., is the *constant error carousel*: along it
dc'/dc = f, so while the forget gate is open (f near 1) an error travels back over any number of
steps without being squashed or mixed. That is why it does not vanish.

Sources: Hochreiter & Schmidhuber 1997, Neural Computation 9(8), for the cell and the carousel;
Gers, Schmidhuber & Cummins 2000, Neural Computation 12(10), for the forget gate; Sak, Senior &
Beaufays 2014, Interspeech, for the projection.

Every compiled build offers the functions of this module with the same signatures. Shapes: T steps,
B rows (sequences of the batch), I inputs, H hidden units, P outputs (H, or the projection's size).
Gates stand in the order i, f, g, o. Arguments shared by all of them:

rows : int array or None
    The rows to work on, longest first; None for all of them.
live : int [T] array or None
    ``rows[:live[t]]`` have not ended at step t; None when no row ends early.
resets : bool [T, B] array or None
    Where true, the row's state is cut to zero before step t.
reverse : bool
    Walk the steps from last to first.
team : int64 [threads + 2, 8] array or None
    Shared by calls on several threads that split the units of every step; see `threads.lead`. Here
    the one that leads does it all.
invite : function or None
    Of the call that leads a team, which calls it when it is about to begin.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "lstm_backward",
    "lstm_call",
    "lstm_call_back",
    "lstm_forward",
    "pack",
    "pack_gates",
    "product",
    "sigmoid",
    "tanh",
    "weight_gradient",
]

Array: TypeAlias = np.ndarray

_quiet = np.errstate(all="ignore")  # as the compiled builds: an inf or NaN is no accident here


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), in a form that does not overflow."""
    half = x.dtype.type(0.5)
    return np.asarray(half + half * np.tanh(half * x))


def tanh(x: Array) -> Array:
    return np.asarray(np.tanh(x))


def pack(matrix: Array) -> Array:
    """`matrix` [N, K] as `product` wants it."""
    return np.ascontiguousarray(matrix)


def pack_gates(W_ih: Array, W_hh: Array, bias: Array) -> Array:
    """[4H, I], [4H, P] and [4H] as `lstm_forward` wants them: one array [4H, 1 + I + P]."""
    return np.concatenate([bias[:, None], W_ih, W_hh], axis=1)


@_quiet
def product(
    a: Array,
    packed: Array,
    out: Array,
    bias: Array | None = None,
    rows: Array | None = None,
    live: Array | None = None,
    accumulate: bool = False,
) -> None:
    """out [T, B, N] = a [T, B, K] · packedᵀ + bias [N]; rows that have ended get zeros."""
    result = a @ packed.T
    if bias is not None:
        result += bias
    if rows is None:
        out[...] = out + result if accumulate else result
        return
    for t, now in _steps(len(a), rows, live):
        out[t, now] = out[t, now] + result[t, now] if accumulate else result[t, now]
        if not accumulate:
            out[t, _ended(rows, live, t)] = 0


@_quiet
def weight_gradient(
    dz: Array,
    x: Array,
    dW: Array,
    y: Array | None = None,
    h0: Array | None = None,
    dR: Array | None = None,
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
) -> None:
    """dW [M, N] = Σ dz[t, b]ᵀ · x[t, b], and with y, dR [M, P] = Σ dz[t, b]ᵀ · h before t.

    dz [T, B, M] is the gradient of z = W x + R h, x [T, B, N] the input, y [T, B, P] the h of every
    step, h0 [B, P] that before the first. The sums are over every live row of every step.
    """
    alive = np.zeros(dz.shape[:2], np.bool_)
    for t, now in _steps(len(dz), rows, live):
        alive[t, now] = True
    dz_alive = dz[alive]
    dW[...] = dz_alive.T @ x[alive]
    if y is not None and h0 is not None and dR is not None:
        dR[...] = dz_alive.T @ _before(y, h0, rows, live, resets, reverse)[alive]


@_quiet
def lstm_forward(
    x: Array,  # [T, B, I]
    packed: Array,  # from pack_gates
    projection: Array | None,  # from pack(W_hr [P, H]), or None
    h0: Array,  # [B, P]
    c0: Array,  # [B, H]
    y: Array,  # OUT [T, B, P]: h of every step; zeros where a row has ended
    h_n: Array,  # OUT [B, P]: h of each row's last step
    c_n: Array,  # OUT [B, H]
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    gates: Array
    | None = None,  # OUT [T, B, 4, H]: i, f, g, o of every step, kept for lstm_backward
    cells: Array | None = None,  # OUT [T, B, H]: c of every step
    hidden: Array | None = None,  # OUT [T, B, H]: o * tanh(c), where a projection hides it
    team: Array | None = None,
    invite: Callable[[], None] | None = None,
) -> None:
    """One layer in one direction over the whole sequence."""
    if team is not None and invite is None:
        return
    inputs, H = x.shape[2], c0.shape[1]
    bias, W, R = packed[:, 0], packed[:, 1 : 1 + inputs], packed[:, 1 + inputs :].T
    from_input = x @ W.T + bias
    all_rows = slice(None) if rows is None else rows
    h_n[all_rows], c_n[all_rows] = h0[all_rows], c0[all_rows]

    for t, now in _steps(len(x), rows, live, reverse):
        h, c = _cut(h_n[now], c_n[now], resets, t, now)
        preactivation = from_input[t, now] + h @ R

        input_gate = sigmoid(preactivation[:, :H])
        forget_gate = sigmoid(preactivation[:, H : 2 * H])
        candidate = np.tanh(preactivation[:, 2 * H : 3 * H])
        output_gate = sigmoid(preactivation[:, 3 * H :])
        c = forget_gate * c + input_gate * candidate
        h = output_gate * np.tanh(c)

        if gates is not None and cells is not None:
            cells[t, now] = c
            for gate, value in enumerate((input_gate, forget_gate, candidate, output_gate)):
                gates[t, now, gate] = value
        if projection is not None:
            if hidden is not None:
                hidden[t, now] = h
            h = h @ projection.T
        y[t, now] = h_n[now] = h
        c_n[now] = c
        y[t, _ended(rows, live, t)] = 0


def lstm_call(
    packed: Array,
    projection: Array | None,
    sizes: tuple[int, int, int],
    step_axis: int,
    row_axis: int,
    most: int,
    x: Any,
    state: Any,
    keep: bool = False,
) -> tuple[Array, tuple[Array, Array], Array | None, Array | None] | None:
    """A short cut of the compiled builds, see lstm_call.pxi; None sends the caller round it."""
    return None


@_quiet
def lstm_backward(
    gates: Array,  # IN what lstm_forward kept; OUT [T, B, 4, H]: gradients before the activations
    cells: Array,  # [T, B, H]
    c0: Array,  # [B, H]
    dy: Array,  # [T, B, P]
    dh: Array,  # IN [B, P]: gradient of h_n; OUT: of h0
    dc: Array,  # IN [B, H]: gradient of c_n; OUT: of c0
    recurrent: Array,  # from pack(W_hhᵀ [P, 4H])
    projection: Array | None = None,  # from pack(W_hrᵀ [H, P]), or None
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    dprojected: Array
    | None = None,  # OUT [T, B, P]: gradient of every step's h, where it was projected
    team: Array | None = None,
    invite: Callable[[], None] | None = None,
) -> None:
    """Back through time: the gradients of every gate, and of the initial state."""
    if team is not None and invite is None:
        return
    before = _before(cells, c0, rows, live, resets, reverse)
    steps = list(_steps(len(gates), rows, live, reverse))
    for t, now in reversed(steps):
        input_gate, forget_gate, candidate, output_gate = np.moveaxis(gates[t, now], 1, 0)
        squashed = np.tanh(cells[t, now])

        d_hidden = dy[t, now] + dh[now]
        if projection is not None and dprojected is not None:
            dprojected[t, now] = d_hidden
            d_hidden = d_hidden @ projection.T
        d_cell = dc[now] + d_hidden * output_gate * (1 - squashed * squashed)
        d_input = d_cell * candidate * input_gate * (1 - input_gate)
        d_forget = d_cell * before[t, now] * forget_gate * (1 - forget_gate)
        d_candidate = d_cell * input_gate * (1 - candidate * candidate)
        d_output = d_hidden * squashed * output_gate * (1 - output_gate)
        d_cell = d_cell * forget_gate  # the carousel: nothing else stands between c and c'

        d_gates = np.concatenate([d_input, d_forget, d_candidate, d_output], axis=1)
        gates[t, now] = d_gates.reshape(-1, 4, c0.shape[1])
        dh[now], dc[now] = _cut(d_gates @ recurrent.T, d_cell, resets, t, now)


def lstm_call_back(
    recurrent: Array,
    transposed: Array,
    batch_first: bool,
    x: Array,
    state: tuple[Array, Array],
    y: Array,
    gates: Array,
    cells: Array,
    dy: Any,
    dstate: Any,
) -> tuple[Array, tuple[Array, Array], Array, Array] | None:
    """A short cut of the compiled builds, see lstm_call.pxi; None sends the caller round it."""
    return None


def _steps(
    T: int, rows: Array | None, live: Array | None, reverse: bool = False
) -> Iterator[tuple[int, Array | slice]]:
    """Each step, in the order of the walk, with the rows that live at it."""
    for t in range(T)[:: -1 if reverse else 1]:
        if rows is None:
            yield t, slice(None)
        else:
            yield t, rows if live is None else rows[: live[t]]


def _ended(rows: Array | None, live: Array | None, t: int) -> Array | slice:
    return slice(0, 0) if rows is None or live is None else rows[live[t] :]


def _cut(
    h: Array, c: Array, resets: Array | None, t: int, now: Array | slice
) -> tuple[Array, Array]:
    """The state that step t starts from: zero where a reset says so."""
    if resets is None:
        return h, c
    keep = ~resets[t, now, None]
    return np.where(keep, h, 0), np.where(keep, c, 0)


def _before(
    series: Array,
    first: Array,
    rows: Array | None,
    live: Array | None,
    resets: Array | None,
    reverse: bool,
) -> Array:
    """[T, B, N]: for every step what the step before it left behind."""
    state = first.copy()
    before = np.zeros_like(series)
    for t, now in _steps(len(series), rows, live, reverse):
        before[t, now] = state[now]
        state[now] = series[t, now]
    if resets is not None:
        before[resets] = 0
    return before
