"""Activations as a layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, memory_for, quiet, read_array, read_floats
from fastlstm.kernels import kernels
from fastlstm.layers.activations import PARAMETERS, read_activation
from fastlstm.module import Gradients, Module, Output, Tape, check_tape, describe_backward

# SELU's λ and α: Klambauer et al. 2017, "Self-normalizing neural networks", eq. 14.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
# Numerators and denominators of `erfc`.
ERF_NEAR = (
    (
        *(1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2),
        *(3.77485237685302021e2, 3.20937758913846947e3),
    ),
    (
        *(1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3),
        *(2.84423683343917062e3,),
    ),
)
ERFC_BETWEEN = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0),
        *(6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2),
        *(1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2),
        *(1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3),
        *(3.43936767414372164e3, 1.23033935480374942e3),
    ),
)
ERFC_FAR = (
    (
        *(1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1),
        *(1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    ),
    (
        *(1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1),
        *(6.05183413124413191e-2, 2.33520497626869185e-3),
    ),
)
FEW = 2048  # numbers that take less time one by one than as an array
MARGIN = 4e-15  # more than the relative errors of `erfc` and of `math.erfc` together


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

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of x."""
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
    """Φ(x) = erfc(-x / √2) / 2, the integral of the standard normal density up to x.

    The same number has the same bits, however many stand beside it: in float32, `erfc` only counts
    where all numbers within `MARGIN` round to the same one (Ziv 1991, "Fast evaluation of
    elementary mathematical functions with correctly rounded last bit").
    """
    z = x.ravel().astype(np.float64) * -math.sqrt(0.5)
    if x.dtype == np.float32 and z.size > FEW:
        result = erfc(z)
        low, high = ((result * (0.5 + side)).astype(x.dtype) for side in (-MARGIN, MARGIN))
        (places,) = np.nonzero(low != high)
        low[places] = 0.5 * _erfc_one_by_one(z[places])
        return low.reshape(x.shape)
    return np.asarray(0.5 * _erfc_one_by_one(z), x.dtype).reshape(x.shape)


def _erfc_one_by_one(x: np.ndarray) -> np.ndarray:
    result = np.empty_like(x)
    for start in range(0, len(x), FEW):
        part = x[start : start + FEW].tolist()
        result[start : start + FEW] = np.fromiter(map(math.erfc, part), np.float64, len(part))
    return result


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x) of float64 numbers: Cody 1969, "Rational Chebyshev approximations for the error
    function", with the coefficients of his CALERF. Its relative error is below 1e-15 where the
    result is above 1e-300."""
    y = np.minimum(np.abs(x), 64)  # erfc(64) is 0 in float64
    result = np.empty_like(y)
    near, far = y <= 0.46875, y > 4
    between = ~(near | far)  # nan, too
    z = y[near]
    result[near] = 1 - z * _ratio(z * z, *ERF_NEAR)
    z = y[between]
    result[between] = _exp_of_square(z) * _ratio(z, *ERFC_BETWEEN)
    z = y[far]
    square = 1 / (z * z)
    tail = 1 / math.sqrt(math.pi) - square * _ratio(square, *ERFC_FAR)
    result[far] = _exp_of_square(z) * tail / z
    return np.asarray(np.where(x < 0, 2 - result, result))


def _ratio(x: np.ndarray, above: tuple[float, ...], below: tuple[float, ...]) -> np.ndarray:
    """The ratio of two polynomials, whose coefficients begin with that of the highest power."""
    results: list[np.ndarray] = []
    for coefficients in (above, below):
        result = np.full(x.shape, coefficients[0])
        for coefficient in coefficients[1:]:
            result *= x
            result += coefficient
        results.append(result)
    numerator, denominator = results
    numerator /= denominator
    return numerator


def _exp_of_square(x: np.ndarray) -> np.ndarray:
    """exp(-x²); the square of x in sixteenths is exact."""
    head = np.trunc(x * 16) / 16
    return np.asarray(np.exp(-head * head) * np.exp(-(x - head) * (x + head)))


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
    return np.asarray(SELU_SCALE * np.where(x <= 0, below, 1), x.dtype)


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
