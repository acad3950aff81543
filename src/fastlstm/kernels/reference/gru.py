"""The gated recurrent unit (Cho et al. 2014, "Learning phrase representations", eq. 5 to 8).

It has no cell state: h itself is the carousel, of which the *update gate* z keeps a share, and the
*reset gate* r decides how much of h the candidate n sees. Gates stand in torch's order r, z, n:

    r  = sigmoid(W_r x + R_r h + b_r)
    z  = sigmoid(W_z x + R_z h + b_z)
    n  = tanh(W_n x + b_in + R_n (r * h) + b_hn)      as published
    n  = tanh(W_n x + b_in + r * (R_n h + b_hn))      linear_before_reset, torch's
    h' = (1 - z) * n + z * h
"""

import numpy as np

from fastlstm.kernels.reference.activations import Kind, activate_clipped, slope_clipped
from fastlstm.kernels.reference.walk import Array, before, ended, fresh, quiet, steps


def pack_gru(W_ih: Array, W_hh: Array, bias_ih: Array, bias_hh: Array) -> Array:
    """[3H, I], [3H, H], [3H], [3H] as `gru_forward` wants them: one array [3H, 2 + I + H]."""
    return np.concatenate([bias_ih[:, None], bias_hh[:, None], W_ih, W_hh], axis=1)


def gru_forward(
    x: Array,  # [T, B, I]
    packed: Array,  # from pack_gru
    h0: Array,  # [B, H]
    y: Array,  # OUT [T, B, H]: h of every step; zeros where a row has ended
    h_n: Array,  # OUT [B, H]: h of each row's last step
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    gates: Array | None = None,  # OUT [T, B, 4, H]: r, z, n and R_n h + b_hn of every step
) -> None:
    """With sigmoid and tanh, and linear_before_reset."""
    inputs, H = x.shape[2], h0.shape[1]
    bias_ih, bias_hh = packed[:, 0].reshape(3, H), packed[:, 1].reshape(3, H)
    W, R = packed[:, 2 : 2 + inputs], packed[:, 2 + inputs :]
    bias = np.concatenate([bias_ih[:2] + bias_hh[:2], bias_ih[2:], bias_hh[2:]])
    weights = W, R[: 2 * H], R[2 * H :], bias
    activations = np.array([[Kind.SIGMOID, 0, 0], [Kind.TANH, 0, 0]], x.dtype)
    options = True, activations, np.inf
    gru_general_forward(x, *weights, h0, y, h_n, *options, rows, live, resets, reverse, gates)


@quiet
def gru_general_forward(
    x: Array,  # [T, B, I]
    W: Array,  # from pack(W_ih [3H, I])
    R: Array,  # from pack(W_hh[:2H])
    R_candidate: Array,  # from pack(W_hh[2H:])
    bias: Array,  # [4, H]: of r, z, W_n x and R_n h
    h0: Array,  # [B, H]
    y: Array,  # OUT [T, B, H]
    h_n: Array,  # OUT [B, H]
    linear_before_reset: bool,
    activations: Array,  # [2, 3]: kind, alpha and beta for the gates and for the candidate
    clip: float,  # of what goes into an activation
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    gates: Array | None = None,  # OUT [T, B, 4, H]: r, z, n, and R_n h + b_hn or r * h
    slopes: Array | None = None,  # OUT [T, B, 3, H]: of the activations of r, z, n
) -> None:
    H, (gate, candidate_activation) = h0.shape[1], activations
    from_input = x @ W.T + bias[:3].ravel()
    all_rows = slice(None) if rows is None else rows
    h_n[all_rows] = h0[all_rows]

    for t, now in steps(len(x), rows, live, reverse):
        h = fresh(h_n[now], resets, t, now)
        preactivation = from_input[t, now]
        preactivation[:, : 2 * H] += h @ R.T
        reset_z, update_z, candidate_z = np.split(preactivation, 3, axis=1)

        reset_gate = activate_clipped(gate, clip, reset_z)
        update_gate = activate_clipped(gate, clip, update_z)
        if linear_before_reset:
            seen = h @ R_candidate.T + bias[3]
            candidate_z = candidate_z + reset_gate * seen
        else:
            seen = reset_gate * h
            candidate_z = candidate_z + (seen @ R_candidate.T + bias[3])
        candidate = activate_clipped(candidate_activation, clip, candidate_z)

        if gates is not None:
            gates[t, now] = np.stack([reset_gate, update_gate, candidate, seen], axis=1)
        if slopes is not None:
            for k, z in enumerate((reset_z, update_z, candidate_z)):
                slopes[t, now, k] = slope_clipped(activations[k // 2], clip, z)
        y[t, now] = h_n[now] = (1 - update_gate) * candidate + update_gate * h
        y[t, ended(rows, live, t)] = 0


@quiet
def gru_backward(
    gates: Array,  # IN what forward kept; OUT [T, B, 4, H]: gradients before the activations, and
    #                of R_n h + b_hn; without linear_before_reset, r * h stays
    y: Array,  # [T, B, H]
    h0: Array,  # [B, H]
    dy: Array,  # [T, B, H]
    dh: Array,  # IN [B, H]: gradient of h_n; OUT: of h0
    R: Array,  # from pack(W_hh[:2H]ᵀ)
    R_candidate: Array,  # from pack(W_hh[2H:]ᵀ)
    linear_before_reset: bool,
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    slopes: Array | None = None,  # [T, B, 3, H]; None: those of sigmoid and tanh
) -> None:
    """Back through time: the gradients of every gate, and of the initial state."""
    h_before = before(y, h0, rows, live, resets, reverse)
    for t, now in reversed(list(steps(len(y), rows, live, reverse))):
        h = h_before[t, now]
        reset_gate, update_gate, candidate, seen = np.moveaxis(gates[t, now], 1, 0)
        if slopes is None:
            reset_slope = reset_gate * (1 - reset_gate)
            update_slope = update_gate * (1 - update_gate)
            candidate_slope = 1 - candidate * candidate
        else:
            reset_slope, update_slope, candidate_slope = np.moveaxis(slopes[t, now], 1, 0)

        d_hidden = dy[t, now] + dh[now]
        d_candidate = d_hidden * (1 - update_gate) * candidate_slope
        d_update = d_hidden * (h - candidate) * update_slope
        d_hidden = d_hidden * update_gate
        if linear_before_reset:
            d_reset = d_candidate * seen * reset_slope
            seen = d_candidate * reset_gate
            d_hidden = d_hidden + seen @ R_candidate.T
        else:
            d_seen = d_candidate @ R_candidate.T
            d_reset = d_seen * h * reset_slope
            d_hidden = d_hidden + d_seen * reset_gate
        d_hidden = d_hidden + np.concatenate([d_reset, d_update], axis=1) @ R.T

        gates[t, now] = np.stack([d_reset, d_update, d_candidate, seen], axis=1)
        dh[now] = fresh(d_hidden, resets, t, now)
