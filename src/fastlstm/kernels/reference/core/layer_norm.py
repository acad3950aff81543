"""Layer normalization (Ba, Kiros & Hinton 2016, arXiv 1607.06450), without gain and bias."""

import numpy as np

from fastlstm.kernels.arguments import Array

EPSILON = 1e-5  # added to the variance


def standardize(x: Array) -> tuple[Array, Array]:
    """(x - mean) / sqrt(variance + ε) over the last axis, and the scale 1 / sqrt(variance + ε)."""
    centered = x - x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centered**2).mean(axis=-1) + x.dtype.type(EPSILON))
    return centered * scale[..., None], scale


def standardize_backward(d_normal: Array, normal: Array, scale: Array) -> Array:
    """The gradient of x, from that of `normal`; `standardize` returned `normal` and `scale`."""
    along = normal * (d_normal * normal).mean(axis=-1, keepdims=True)
    d_centered = d_normal - d_normal.mean(axis=-1, keepdims=True) - along
    return np.asarray(d_centered * scale[..., None])
