"""Keras' activations under this library's names."""

from typing import Any

from fastlstm.interop.keras.config import Layer, Version
from fastlstm.layers.activation import Activation
from fastlstm.layers.activations import PARAMETERS

# Keras' name: the kind here, then alpha and beta: ``keras/src/activations/activations.py``.
NAMES: dict[str, tuple[Any, ...]] = {
    **{name: (name,) for name in ("relu", "sigmoid", "tanh", "softmax", "selu", "softplus")},
    **{name: (name,) for name in ("softsign", "exponential", "silu", "gelu")},
    "elu": ("elu", 1.0),
    "leaky_relu": ("leaky_relu", 0.2),
    "linear": ("affine", 1.0, 0.0),
    "swish": ("silu",),
}


def read_name(field: str, name: Any, version: Version) -> tuple[Any, ...]:
    """Return (kind, alpha, beta), without those that the kind lacks; of None, the identity."""
    if name is None:
        name = "linear"
    if isinstance(name, dict):  # how Keras 3 writes functions of others
        name = name.get("registered_name") or name.get("config")
    if name == "hard_sigmoid":
        return "hard_sigmoid", 1 / 6 if version.major > 2 else 0.2, 0.5
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"{field}: expected an activation known here, got {name!r:.60}")
    return NAMES[name]


def of_gates(layer: Layer, key: str, version: Version) -> tuple[Any, ...]:
    """Return an activation of a recurrent layer."""
    if key not in layer.config:
        raise ValueError(f"{layer}: expected {key!r} in its configuration")
    found = read_name(f"{layer}: {key}", layer.config[key], version)
    if found[0] not in PARAMETERS:
        raise ValueError(f"{layer}: {key}: gates have no {found[0]} here")
    return found


def after(layer: Layer, version: Version) -> list[Activation]:
    """Return the activation of a `Dense` or `Activation` layer as layers: none for the identity."""
    found = read_name(f"{layer}: activation", layer.config.get("activation"), version)
    return [] if found == NAMES["linear"] else [Activation(*found)]


def of_layer(layer: Layer) -> Activation:
    """Return the activation that a layer of its own is: ReLU, LeakyReLU, ELU, Softmax."""
    config = layer.config
    if layer.kind == "Softmax":
        if config.get("axis", -1) not in (-1, [-1]):
            raise ValueError(f"{layer}: expected axis -1, got {config['axis']!r:.40}")
        return Activation("softmax")
    if layer.kind == "ELU":
        return Activation("elu", read_number(layer, "alpha", config.get("alpha", 1.0)))
    if layer.kind == "ThresholdedReLU":
        return Activation("thresholded_relu", read_number(layer, "theta", config.get("theta", 1.0)))
    if layer.kind == "LeakyReLU":
        slope = config.get("negative_slope", config.get("alpha", 0.3))
        return Activation("leaky_relu", read_number(layer, "negative_slope", slope))
    if config.get("max_value") is not None or config.get("threshold") not in (None, 0):
        raise ValueError(f"{layer}: max_value and threshold have no counterpart here")
    slope = read_number(layer, "negative_slope", config.get("negative_slope") or 0.0)
    return Activation("leaky_relu", slope) if slope else Activation("relu")


def read_number(layer: Layer, key: str, value: Any) -> float:
    """Return a number of a layer's configuration."""
    if isinstance(value, dict):  # {"class_name": "__numpy__", "config": {"value": ...}}
        value = value.get("config", {}).get("value") if "config" in value else value.get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{layer}: {key}: expected a number, got {value!r:.60}")
    return float(value)
