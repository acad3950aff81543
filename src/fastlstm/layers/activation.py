"""Activations as a layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, memory_for, quiet, read_array, read_floats
from fastlstm.kernels import kernels
from fastlstm.layers.activations import PARAMETERS, read_activation
from fastlstm.module import Gradients, Module, Output, Parameters, Tape, check_tape

# SELU's λ and α: Klambauer et al. 2017, "Self-normalizing neural networks", eq. 14.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(slots=True, eq=False)
class ActivationTape(Tape):
    x: np.ndarray


class Activation(Module):
    """A function of every number, or with "softmax" of the features of every step.

    Parameters
    ----------
    kind : str
        A name that recurrent layers take for their gates: "sigmoid", "tanh", "relu", "affine",
        "leaky_relu", "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu", "softsign" or
        "softplus", as ONNX defines them. Or "softmax", over the last axis; "silu", x σ(x)
        (Elfwing, Uchida & Doya 2018); "gelu", x Φ(x) with Φ the normal distribution, and
        "gelu_tanh", its approximation by tanh (Hendrycks & Gimpel 2016); "selu" (Klambauer et al.
        2017); or "exponential".
    alpha, beta : float, optional
        Parameters of the first group's functions; ONNX's defaults if None.

    Raises
    ------
    ValueError
        There is no such function, or it has no such parameter.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> fl.Activation("relu")(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> fl.Activation("softmax")(np.zeros((1, 4)))
    array([[0.25, 0.25, 0.25, 0.25]])
    >>> model = fl.Sequential(fl.LSTM(3, 5), fl.Linear(5, 1), fl.Activation("leaky_relu", 0.2))
    """

    acts_on_steps = True

    def __init__(self, kind: str, alpha: float | None = None, beta: float | None = None):
        if isinstance(kind, str) and kind in MORE:
            if alpha is not None or beta is not None:
                raise ValueError(f"alpha, beta: {kind} takes no parameter, got {alpha}, {beta}")
        else:
            if isinstance(kind, str) and kind not in PARAMETERS:
                known = ", ".join((*PARAMETERS, *MORE))
                raise ValueError(f"kind: expected one of {known}, got {kind!r}")
            if beta is not None and alpha is None:
                raise ValueError("alpha: expected a number with beta, got None")
            given = [value for value in (alpha, beta) if value is not None]
            self._function = read_activation("kind", (kind, *given))
        self.kind, self.alpha, self.beta = kind, alpha, beta
        self._parameters = Parameters({})

    def __call__(self, x: Any) -> np.ndarray:
        """Return the function of x.

        Parameters
        ----------
        x : array of any shape; with "softmax" of at least one axis

        Returns
        -------
        y : array
            Of x's shape, float32 or float64, as x; other real dtypes are cast to float64.
        """
        return self._apply(read_floats("x", x))

    def forward(self, x: Any) -> tuple[np.ndarray, ActivationTape]:
        """Return the function of x as a call does, and a tape.

        Parameters
        ----------
        x : array of any shape

        Returns
        -------
        y : array
        tape : ActivationTape
            The argument of one `backward`.
        """
        array = np.array(read_floats("x", x), order="C")
        return self._apply(array), ActivationTape(self, array)

    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of x.

        Parameters
        ----------
        tape : ActivationTape
            From `forward`.
        dy : array
            Gradient of y, in y's shape.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError
            The tape is from another layer or was used, or dy's shape is not y's.
        """
        tape = check_tape(tape, ActivationTape, self)
        dy, x = read_array("dy", dy, tape.x.dtype), tape.x
        check_shape("dy", dy, *x.shape)
        tape.claim()
        with quiet(), memory_for("x", x.shape):
            if self.kind == "softmax":
                y = softmax(x)
                return Gradients(x=y * (dy - (y * dy).sum(axis=-1, keepdims=True)))
            if self.kind in MORE:
                return Gradients(x=dy * MORE[self.kind][1](x))
            slope = kernels(x.dtype).activation_slope(*self._function, x.ravel())
            return Gradients(x=dy * np.reshape(slope, x.shape))

    def _apply(self, x: np.ndarray) -> np.ndarray:
        if self.kind == "softmax" and not x.ndim:
            raise ValueError("x: expected an axis of features, got a single number")
        with quiet(), memory_for("x", x.shape):
            if self.kind in MORE:
                return MORE[self.kind][0](x)
            y = kernels(x.dtype).activate(*self._function, x.ravel())
            return np.reshape(y, x.shape)

    def _output(self, before: Output) -> Output:
        return before


def softmax(x: np.ndarray) -> np.ndarray:
    if not x.size:
        return x.copy()
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.reshape(kernels(x.dtype).sigmoid(x.ravel()), x.shape)


def silu_slope(x: np.ndarray) -> np.ndarray:
    y = sigmoid(x)
    return np.asarray(y * (1 + x * (1 - y)))


def normal_distribution(x: np.ndarray) -> np.ndarray:
    """Φ(x), the integral of the standard normal density up to x."""
    ends = [0.5 * math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]
    return np.array(ends, x.dtype).reshape(x.shape)


def gelu_slope(x: np.ndarray) -> np.ndarray:
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.asarray(normal_distribution(x) + x * density)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * sigmoid(_gelu_argument(x)))


def gelu_tanh_slope(x: np.ndarray) -> np.ndarray:
    y = sigmoid(_gelu_argument(x))
    slope = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return np.asarray(y + x * slope * y * (1 - y))


def _gelu_argument(x: np.ndarray) -> np.ndarray:
    """Twice the argument of tanh, so that (1 + tanh) / 2 is a sigmoid."""
    return np.asarray(math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x))


def selu(x: np.ndarray) -> np.ndarray:
    below = SELU_ALPHA * np.expm1(np.minimum(x, 0))
    return np.asarray(SELU_SCALE * np.where(x < 0, below, x), x.dtype)


def selu_slope(x: np.ndarray) -> np.ndarray:
    below = SELU_ALPHA * np.exp(np.minimum(x, 0))
    return np.asarray(SELU_SCALE * np.where(x < 0, below, 1), x.dtype)


Function = Callable[[np.ndarray], np.ndarray]
# Functions that gates do not have, each with its slope.
MORE: dict[str, tuple[Function, Function]] = {
    "softmax": (softmax, np.ones_like),  # its gradient is no product with a slope: see `backward`
    "silu": (lambda x: x * sigmoid(x), silu_slope),
    "gelu": (lambda x: x * normal_distribution(x), gelu_slope),
    "gelu_tanh": (gelu_tanh, gelu_tanh_slope),
    "selu": (selu, selu_slope),
    "exponential": (np.exp, np.exp),
}
