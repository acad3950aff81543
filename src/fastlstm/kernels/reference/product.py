"""Dense products, and the sums that are weights' gradients."""

import numpy as np

from fastlstm.kernels.reference.walk import Array, before, ended, quiet, steps


def pack(matrix: Array) -> Array:
    """`matrix` [N, K] as `product` wants it."""
    return np.ascontiguousarray(matrix)


@quiet
def product(
    a: Array,
    packed: Array,
    out: Array,
    bias: Array | None = None,
    rows: Array | None = None,
    live: Array | None = None,
    accumulate: bool = False,
    threads: int = 1,
) -> None:
    """out [T, B, N] = a [T, B, K] · packedᵀ + bias [N]; rows that have ended get zeros."""
    result = a @ packed.T
    if bias is not None:
        result += bias
    if rows is None:
        out[...] = out + result if accumulate else result
        return
    for t, now in steps(len(a), rows, live):
        out[t, now] = out[t, now] + result[t, now] if accumulate else result[t, now]
        if not accumulate:
            out[t, ended(rows, live, t)] = 0


@quiet
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
    db: Array | None = None,
    threads: int = 1,
) -> None:
    """dW [M, N] = Σ dz[t, b]ᵀ · x[t, b]; with y, dR [M, P] = Σ dz[t, b]ᵀ · h; db [M] = Σ dz[t, b].

    dz [T, B, M] is the gradient of z = W x + R h and x [T, B, N] the input. With h0 [B, P], h is
    the y [T, B, P] of the step before, at first h0, and zero after a reset; without it, h is the y
    of the same step. The sums are over every live row of every step.
    """
    alive = np.zeros(dz.shape[:2], np.bool_)
    for t, now in steps(len(dz), rows, live):
        alive[t, now] = True
    dz_alive = dz[alive]
    dW[...] = dz_alive.T @ x[alive]
    if db is not None:
        db[...] = dz_alive.sum(axis=0)
    if y is not None and dR is not None:
        h = y if h0 is None else before(y, h0, rows, live, resets, reverse)
        dR[...] = dz_alive.T @ h[alive]
