"""RTNeural's JSON: layers one after another, each with Keras' arrays; and AIDA-X, which adds to it.

The formats: https://github.com/jatinchowdhury18/RTNeural, RTNeural/model_loader.h, and
https://github.com/AidaDSP/AIDA-X, whose files may have a gain in dB before and behind the model,
and add the first input to its output.
"""

from typing import Any

import numpy as np

from fastlstm.interop.audio.skip import Skip
from fastlstm.interop.reading import (
    MOST_LAYERS,
    Hints,
    member,
    read_count,
    read_json_numbers,
    shown,
)
from fastlstm.interop.recurrent import ZRH, make, make_linear, reorder
from fastlstm.layers.activation import Activation
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module

ACTIVATIONS = "tanh", "relu", "sigmoid", "softmax", "elu"
SILENCE = -90.0  # dB; at and below it, AIDA-X's gain is 0


def read(file: dict[str, Any], hints: Hints) -> Any:
    """Return the layers as a `Sequential`; alone if there is one."""
    inputs = size = _last("in_shape", file.get("in_shape"))
    modules: list[Module] = []
    layers = member(file, "layers", list)
    read_count("layers: their number", len(layers), most=MOST_LAYERS)
    for index, layer in enumerate(layers):
        name = f"layers[{index}]"
        made = _read_layer(name, layer, size, hints)
        size = _last(f"{name}.shape", layer.get("shape"), _size_of(made, size))
        modules += made
    has_skip = _read_skip(file)
    if has_skip:
        modules = [Skip(Sequential(*modules))]
    before, behind = (_read_gain(file, name) for name in ("in_gain", "out_gain"))
    if before and inputs > 1:
        raise ValueError(
            f"in_gain: expected none for {inputs} inputs, of which it would change the first, "
            f"got {file['in_gain']}"
        )
    modules = before + modules + behind
    return modules[0] if len(modules) == 1 and not has_skip else Sequential(*modules)


def _read_layer(name: str, layer: Any, inputs: int, hints: Hints) -> list[Module]:
    kind = member(layer, "type", str, name)
    function = layer.get("activation", "")
    if type(function) is not str or function not in ("", *ACTIVATIONS):
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{name}.activation: expected '' or one of {known}, got {shown(function)}")
    activation: list[Module] = [Activation(function)] if function else []
    if kind == "activation":
        return activation
    if kind in ("dense", "time-distributed-dense"):
        weight, bias = _read_arrays(name, layer, (inputs, None), (None,))
        if bias.shape != weight.shape[1:]:
            raise ValueError(
                f"{name}.weights[1]: expected shape ({weight.shape[1]},), got {bias.shape}"
            )
        return [make_linear(weight.T, bias), *activation]
    if kind not in ("lstm", "gru"):
        raise ValueError(
            f"{name}.type: expected lstm, gru, dense, time-distributed-dense or activation, "
            f"got {shown(kind)}"
        )
    if function not in ("", "tanh"):
        raise ValueError(f"{name}.activation: expected tanh in {kind}, got {function!r}")
    gates = 4 if kind == "lstm" else 3
    R = read_json_numbers(f"{name}.weights[1]", _weights(name, layer, 3)[1], None, None)
    H = len(R)
    bias_shape = (4 * H,) if kind == "lstm" else (2, 3 * H)
    W, R, bias = _read_arrays(name, layer, (inputs, gates * H), (H, gates * H), bias_shape)
    arrays = {"weight_ih": W.T, "weight_hh": R.T, "bias_ih": bias}
    if kind == "gru":
        arrays |= {"bias_ih": bias[0], "bias_hh": bias[1]}
        arrays = {part: reorder(array, ZRH) for part, array in arrays.items()}
    batch_first = hints.get("batch_first", False)
    return [make(kind.upper(), [[arrays]], batch_first=batch_first)]


def _read_arrays(name: str, layer: Any, *shapes: tuple[int | None, ...]) -> list[np.ndarray]:
    values = _weights(name, layer, len(shapes))
    return [
        read_json_numbers(f"{name}.weights[{index}]", value, *shape)
        for index, (value, shape) in enumerate(zip(values, shapes, strict=True))
    ]


def _weights(name: str, layer: Any, count: int) -> list[Any]:
    weights: list[Any] = member(layer, "weights", list, name)
    if len(weights) != count:
        raise ValueError(f"{name}.weights: expected {count} arrays, got {len(weights)}")
    return weights


def _last(name: str, shape: Any, expected: int | None = None) -> int:
    """The number of features in a shape [null, null, features]."""
    if type(shape) is not list or not 1 <= len(shape) <= 3:
        raise ValueError(f"{name}: expected a list of up to 3 sizes, got {shown(shape)}")
    size = read_count(f"{name}[-1]", shape[-1])
    if size != (size if expected is None else expected):
        raise ValueError(f"{name}[-1]: expected {expected}, as the weights have, got {size}")
    return size


def _size_of(modules: list[Module], before: int) -> int:
    """How many features the result of a layer has."""
    first: Any = modules[0] if modules else None
    return getattr(first, "hidden_size", getattr(first, "out_features", before))


def _read_skip(file: dict[str, Any]) -> bool:
    skip = file.get("in_skip")
    if skip is None:
        return False
    return bool(read_count("in_skip", skip, 0, 1))


def _read_gain(file: dict[str, Any], name: str) -> list[Module]:
    """A gain of dB as a layer, if the file has one."""
    gain = file.get(name)
    if gain is None:
        return []
    if type(gain) not in (int, float) or not -1000 <= gain <= 1000:
        raise ValueError(f"{name}: expected decibels from -1000 to 1000, got {shown(gain)}")
    factor = 10 ** (gain / 20) if gain > SILENCE else 0.0
    return [Activation("affine", factor)] if gain else []
