"""ONNX's operators for `fastlstm.Activation`."""

import math
from typing import Any

import numpy as np

from fastlstm.interop.onnx.out.writer import Writer
from fastlstm.layers.activation import SELU_ALPHA, SELU_SCALE, Activation
from fastlstm.layers.activations import PARAMETERS

# One operator each; its attributes are alpha and beta, where it has them.
SINGLE = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "leaky_relu": "LeakyRelu",
    "thresholded_relu": "ThresholdedRelu",
    "hard_sigmoid": "HardSigmoid",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "exponential": "Exp",
}


def add_activation(writer: Writer, x: str, layer: Activation, dtype: np.dtype) -> str:
    """Add the nodes of a layer to a graph; returns its result."""

    def by(kind: str, x: str, factor: float) -> str:
        return writer.node(kind, x, writer.number(factor, dtype))

    kind, defaults = layer.kind, PARAMETERS.get(layer.kind, ())
    given = [value for value in (layer.alpha, layer.beta) if value is not None]
    numbers = [*given, *defaults[len(given) :]]
    if kind in SINGLE:
        names = ("alpha", "beta")
        pairs = zip(names, numbers, strict=False)
        attributes: dict[str, Any] = {name: float(number) for name, number in pairs}
        return writer.node(SINGLE[kind], x, **attributes)
    if kind == "softmax":
        return writer.node("Softmax", x, axis=-1)
    if kind == "selu":
        return writer.node("Selu", x, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    if kind == "affine":
        return by("Add", by("Mul", x, numbers[0]), numbers[1])
    if kind == "scaled_tanh":
        return by("Mul", writer.node("Tanh", by("Mul", x, numbers[1])), numbers[0])
    if kind == "silu":
        return writer.node("Mul", x, writer.node("Sigmoid", x))
    if kind == "gelu":  # x Φ(x) = x (1 + erf(x / √2)) / 2
        erf = writer.node("Erf", by("Mul", x, math.sqrt(0.5)))
        return writer.node("Mul", x, by("Mul", by("Add", erf, 1.0), 0.5))
    if kind == "gelu_tanh":  # x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
        cube = writer.node("Mul", writer.node("Mul", x, x), x)
        inner = writer.node("Add", x, by("Mul", cube, 0.044715))
        tanh = writer.node("Tanh", by("Mul", inner, math.sqrt(2 / math.pi)))
        return writer.node("Mul", x, by("Mul", by("Add", tanh, 1.0), 0.5))
    raise ValueError(f"model: expected an activation that ONNX has, got {kind!r}")
