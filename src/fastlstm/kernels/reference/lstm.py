"""The plain LSTM; its equations stand in `fastlstm.kernels.reference`."""

from typing import Any

import numpy as np

from fastlstm.kernels.reference.activations import sigmoid
from fastlstm.kernels.reference.walk import Array, before, cut, ended, quiet, steps


def pack_gates(W_ih: Array, W_hh: Array, bias: Array) -> Array:
    """[4H, I], [4H, P] and [4H] as `lstm_forward` wants them: one array [4H, 1 + I + P]."""
    return np.concatenate([bias[:, None], W_ih, W_hh], axis=1)


@quiet
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
    threads: int = 1,
) -> None:
    """One layer in one direction over the whole sequence."""
    inputs, H = x.shape[2], c0.shape[1]
    bias, W, R = packed[:, 0], packed[:, 1 : 1 + inputs], packed[:, 1 + inputs :].T
    from_input = x @ W.T + bias
    all_rows = slice(None) if rows is None else rows
    h_n[all_rows], c_n[all_rows] = h0[all_rows], c0[all_rows]

    for t, now in steps(len(x), rows, live, reverse):
        h, c = cut(h_n[now], c_n[now], resets, t, now)
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
        y[t, ended(rows, live, t)] = 0


def lstm_call(
    packed: Array,
    projection: Array | None,
    sizes: tuple[int, int, int],
    step_axis: int,
    row_axis: int,
    sharing: tuple[int, int, int, int],
    x: Any,
    state: Any,
    keep: bool = False,
) -> tuple[Array, tuple[Array, Array], Array | None, Array | None] | None:
    """A short cut of the compiled builds, see lstm_call.pxi; None sends the caller round it."""
    return None


@quiet
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
    threads: int = 1,
) -> None:
    """Back through time: the gradients of every gate, and of the initial state."""
    c_before = before(cells, c0, rows, live, resets, reverse)
    for t, now in reversed(list(steps(len(gates), rows, live, reverse))):
        input_gate, forget_gate, candidate, output_gate = np.moveaxis(gates[t, now], 1, 0)
        squashed = np.tanh(cells[t, now])

        d_hidden = dy[t, now] + dh[now]
        if projection is not None and dprojected is not None:
            dprojected[t, now] = d_hidden
            d_hidden = d_hidden @ projection.T
        d_cell = dc[now] + d_hidden * output_gate * (1 - squashed * squashed)
        d_input = d_cell * candidate * input_gate * (1 - input_gate)
        d_forget = d_cell * c_before[t, now] * forget_gate * (1 - forget_gate)
        d_candidate = d_cell * input_gate * (1 - candidate * candidate)
        d_output = d_hidden * squashed * output_gate * (1 - output_gate)
        d_cell = d_cell * forget_gate  # the carousel: nothing else stands between c and c'

        d_gates = np.concatenate([d_input, d_forget, d_candidate, d_output], axis=1)
        gates[t, now] = d_gates.reshape(-1, 4, c0.shape[1])
        dh[now], dc[now] = cut(d_gates @ recurrent.T, d_cell, resets, t, now)


def lstm_call_back(
    recurrent: Array,
    transposed: Array,
    batch_first: bool,
    sharing: tuple[int, int, int, int],
    x: Array,
    state: tuple[Array, Array],
    y: Array,
    gates: Array,
    cells: Array,
    dy: Any,
    dstate: Any,
) -> tuple[Array, tuple[Array, Array], Array, Array, Array] | None:
    """A short cut of the compiled builds, see lstm_call.pxi; None sends the caller round it."""
    return None
