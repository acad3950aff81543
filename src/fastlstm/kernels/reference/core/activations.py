"""The activations that ONNX lists for its recurrent operators, and their slopes."""

import numpy as np

from fastlstm.kernels.arguments import Activation, Array, Kind
from fastlstm.kernels.reference.core.walk import quiet


def sigmoid(x: Array, /) -> Array:
    """Return 1 / (1 + exp(-x)), in a form that does not overflow."""
    half = x.dtype.type(0.5)
    return np.asarray(half + half * np.tanh(half * x))


def tanh(x: Array, /) -> Array:
    """Return tanh of x."""
    return np.asarray(np.tanh(x))


@quiet
def activate(kind: int, alpha: float, beta: float, x: Array, /) -> Array:
    """Return the activation of number `kind` (see `Kind`) at x.

    alpha and beta are those of ONNX's table of activations, in its LSTM operator.
    """
    alpha, beta = x.dtype.type(alpha), x.dtype.type(beta)
    match kind:
        case Kind.SIGMOID:
            return sigmoid(x)
        case Kind.TANH:
            return tanh(x)
        case Kind.RELU:
            return np.asarray(np.maximum(x, 0))
        case Kind.AFFINE:
            return np.asarray(alpha * x + beta)
        case Kind.LEAKY_RELU:
            return np.where(x < 0, alpha * x, x)
        case Kind.THRESHOLDED_RELU:
            return np.where(x < alpha, 0, x)
        case Kind.SCALED_TANH:
            return np.asarray(alpha * np.tanh(beta * x))
        case Kind.HARD_SIGMOID:
            return np.asarray(np.clip(alpha * x + beta, 0, 1))
        case Kind.ELU:
            return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)
        case Kind.SOFTSIGN:
            x = _finite(x)
            return np.asarray(x / (1 + np.abs(x)))
        case Kind.SOFTPLUS:
            return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))
    raise ValueError(f"kind: expected 0 to {max(Kind)}, got {kind}")


@quiet
def activation_slope(kind: int, alpha: float, beta: float, x: Array, /) -> Array:
    """Return the derivative of `activate` by x.

    At 0, where relu, leaky relu and elu have a corner, it is that of the negative side, and at both
    corners of the hard sigmoid it is 0, as in torch.
    """
    zero, one, alpha, beta = (x.dtype.type(value) for value in (0, 1, alpha, beta))
    match kind:
        case Kind.SIGMOID:
            y = sigmoid(x)
            return np.asarray(y * (1 - y))
        case Kind.TANH:
            return np.asarray(1 - tanh(x) ** 2)
        case Kind.RELU:
            return np.asarray(np.where(x <= 0, zero, one))
        case Kind.AFFINE:
            return np.full_like(x, alpha)
        case Kind.LEAKY_RELU:
            return np.where(x <= 0, alpha, one)
        case Kind.THRESHOLDED_RELU:
            return np.asarray(np.where(x < alpha, zero, one))
        case Kind.SCALED_TANH:
            return np.asarray(alpha * beta * (1 - np.tanh(beta * x) ** 2))
        case Kind.HARD_SIGMOID:
            y = alpha * x + beta
            return np.asarray(np.where((y <= 0) | (y >= 1), zero, alpha))
        case Kind.ELU:
            return np.asarray(np.where(x <= 0, alpha * np.exp(np.minimum(x, 0)), one))
        case Kind.SOFTSIGN:
            return np.asarray(1 / (1 + np.abs(_finite(x))) ** 2)
        case Kind.SOFTPLUS:
            return sigmoid(x)
    raise ValueError(f"kind: expected 0 to {max(Kind)}, got {kind}")


def check_kind(activation: Activation) -> None:
    """Raise ValueError unless the activation's kind is one of `Kind`."""
    if activation.kind not in tuple(Kind):
        raise ValueError(f"kind: expected 0 to {max(Kind)}, got {activation.kind}")


def activate_clipped(activation: Activation, clip: float, z: Array) -> Array:
    """The activation of z limited to ±clip."""
    return activate(*activation, z.clip(-clip, clip))


def slope_clipped(activation: Activation, clip: float, z: Array) -> Array:
    """The derivative of `activate_clipped` by z."""
    slope = activation_slope(*activation, z.clip(-clip, clip))
    return np.where(np.abs(z) > clip, 0, slope)


def _finite(x: Array) -> Array:
    """x with the largest number in place of infinity, so that x / (1 + |x|) is 1 there."""
    largest = np.finfo(x.dtype).max
    return np.asarray(np.clip(x, -largest, largest))
