"""Products of a layer without recurrence, and the gradient of its weight."""

from typing import Any

import numpy as np

from fastlstm.kernels.arguments import Array
from fastlstm.kernels.reference.core.sums import Sum
from fastlstm.kernels.reference.core.walk import quiet


def pack(matrix: Array, /) -> Array:
    """Return a copy of `matrix` [N, K] in the form that `linear` takes."""
    return np.array(matrix, order="C")


@quiet
def linear(x: Array, packed: Array, outputs: int, bias: Array | None, /) -> Any:
    """Return a new y [..., outputs] = x [..., K] · packedᵀ + bias [outputs].

    Returns NotImplemented unless x is a C-contiguous array of the right dtype and of K columns.
    """
    if (
        type(x) is not np.ndarray
        or x.dtype != packed.dtype
        or x.ndim == 0
        or x.shape[-1] != packed.shape[1]
        or not (x.flags.c_contiguous and x.flags.aligned)
    ):
        return NotImplemented
    if outputs != len(packed):
        raise ValueError(f"outputs: expected {len(packed)}, got {outputs}")
    y = x @ packed.T
    return y if bias is None else y + bias


@quiet
def weight_gradient(dz: Array, x: Array, dW: Array, db: Array | None = None, /) -> None:
    """Set dW [M, N] to Σ dz[k]ᵀ · x[k] for dz [K, M] and x [K, N], and db [M], if any, to Σ dz."""
    outer, columns = Sum(), Sum()
    outer.add([(dz, x)], ends=True)
    dW[...] = outer.total()
    if db is not None:
        columns.add([dz], ends=True)
        db[...] = columns.total()
