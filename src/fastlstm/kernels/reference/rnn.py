"""The plain recurrent network (Elman 1990): h' = f(W x + R h + b)."""

from fastlstm.kernels.reference.activations import activate_clipped, slope_clipped
from fastlstm.kernels.reference.walk import Array, ended, fresh, quiet, steps


@quiet
def rnn_forward(
    x: Array,  # [T, B, I]
    W: Array,  # from pack(W_ih [H, I])
    R: Array,  # from pack(W_hh [H, H])
    bias: Array,  # [H]
    h0: Array,  # [B, H]
    y: Array,  # OUT [T, B, H]: h of every step; zeros where a row has ended
    h_n: Array,  # OUT [B, H]: h of each row's last step
    activation: Array,  # [3]: kind, alpha, beta
    clip: float,  # of what goes into the activation
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    gates: Array | None = None,  # OUT [T, B, 1, H]: slope of the activation at every step
) -> None:
    """One layer in one direction over the whole sequence."""
    from_input = x @ W.T + bias
    all_rows = slice(None) if rows is None else rows
    h_n[all_rows] = h0[all_rows]
    for t, now in steps(len(x), rows, live, reverse):
        h = fresh(h_n[now], resets, t, now)
        z = from_input[t, now] + h @ R.T
        y[t, now] = h_n[now] = activate_clipped(activation, clip, z)
        if gates is not None:
            gates[t, now, 0] = slope_clipped(activation, clip, z)
        y[t, ended(rows, live, t)] = 0


@quiet
def rnn_backward(
    gates: Array,  # IN what forward kept; OUT [T, B, 1, H]: gradient before the activation
    dy: Array,  # [T, B, H]
    dh: Array,  # IN [B, H]: gradient of h_n; OUT: of h0
    R: Array,  # from pack(W_hhᵀ)
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
) -> None:
    """Back through time: the gradients before every activation, and of the initial state."""
    for t, now in reversed(list(steps(len(dy), rows, live, reverse))):
        gates[t, now, 0] *= dy[t, now] + dh[now]
        dh[now] = fresh(gates[t, now, 0] @ R.T, resets, t, now)
