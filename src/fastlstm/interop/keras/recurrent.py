"""Keras' recurrent layers, of a configuration and arrays, or of arrays alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm.checks import warn_user
from fastlstm.interop.keras.activations import of_gates, read_name
from fastlstm.interop.keras.config import Layer, Version, inner_layer
from fastlstm.interop.keras.weights import arrays_of, join_keras1
from fastlstm.interop.reading import Hints
from fastlstm.interop.recurrent import BY_GATES, make

KINDS = {"LSTM": "LSTM", "CuDNNLSTM": "LSTM", "GRU": "GRU", "CuDNNGRU": "GRU", "SimpleRNN": "RNN"}
# What must be alike in the two directions of a Bidirectional layer.
SHARED = (
    *("units", "activation", "recurrent_activation", "use_bias", "reset_after"),
    *("return_sequences", "zero_output_for_mask", "dropout", "recurrent_dropout"),
)
MERGES = "concat", "sum", "mul", "ave"


def flag(layer: Layer, key: str, default: bool = False) -> bool:
    """Return an argument of a layer that is a bool."""
    value = layer.config.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{layer}: {key}: expected true or false, got {value!r:.60}")
    return value


def number(layer: Layer, key: str) -> float:
    """Return an argument of a layer that is a probability; 0 if it has none."""
    value = layer.config.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{layer}: {key}: expected a number from 0 to 1, got {value!r:.60}")
    return float(value)


def is_recurrent(layer: Layer) -> bool:
    """Whether a layer is recurrent, in one direction or two."""
    return layer.kind in KINDS or layer.kind == "Bidirectional"


def directions_of(layer: Layer, version: Version) -> tuple[Layer, Any]:
    """Return the recurrent layer that a Bidirectional one repeats, and its merge_mode.

    Of a layer of one direction, itself and "".
    """
    if layer.kind != "Bidirectional":
        return layer, ""
    inner = inner_layer(layer, version)
    if inner.kind not in KINDS:
        raise ValueError(f"{layer}: expected a recurrent layer in it, got {inner.kind!r:.60}")
    if layer.config.get("backward_layer") is not None:
        other = inner_layer(layer, version, "backward_layer")
        keys = [key for key in SHARED if inner.config.get(key) != other.config.get(key)]
        if other.kind != inner.kind or keys:
            raise ValueError(f"{layer}: expected two directions alike, got other {keys or 'kinds'}")
        if flag(inner, "go_backwards") == flag(other, "go_backwards"):
            raise ValueError(f"{layer}: go_backwards: expected it of one direction")
    return inner, layer.config.get("merge_mode", "concat")


def of_layer(layer: Layer, arrays: Sequence[np.ndarray], version: Version, hints: Hints) -> Any:
    """Return a recurrent layer of its configuration and arrays, with both of its directions."""
    inner, _ = directions_of(layer, version)
    return of_config(inner, arrays, inner is not layer, version, hints)


def of_config(
    layer: Layer,
    arrays: Sequence[np.ndarray],
    is_bidirectional: bool,
    version: Version,
    hints: Hints,
) -> Any:
    """Return the layer of a configuration with its arrays, of both directions if it has them."""
    kind, config = KINDS[layer.kind], layer.config
    if flag(layer, "time_major"):
        raise ValueError(f"{layer}: time_major has no counterpart here; see batch_first")
    options: dict[str, Any] = {"batch_first": hints.get("batch_first", True)}
    if layer.kind.startswith("CuDNN"):
        config = {"activation": "tanh", "recurrent_activation": "sigmoid", **config}
    layer = layer._replace(config=config)
    activation = of_gates(layer, "activation", version)
    if kind == "RNN":
        options["nonlinearity"] = activation
    else:
        gate = of_gates(layer, "recurrent_activation", version)
        options["activations"] = (gate, activation, activation)[: 3 if kind == "LSTM" else 2]
    if dropped := number(layer, "recurrent_dropout"):
        if kind == "LSTM":
            options["recurrent_dropout"] = dropped
        else:
            warn_user(f"{layer}: recurrent_dropout has no counterpart here, so training is without")
    has_bias, count = flag(layer, "use_bias", True), len(arrays)
    directions = 2 if is_bidirectional else 1
    per, rest = divmod(count, directions)
    joins = version.major < 2 and per in (9, 12)
    if rest or (per != (3 if has_bias else 2) and not joins):
        wanted = directions * (3 if has_bias else 2)
        raise ValueError(f"{layer}: expected {wanted} arrays, got {count}")
    parts = [list(arrays[k : k + per]) for k in range(0, count, per)]
    reset_after = config.get("reset_after") if kind == "GRU" else None
    if kind == "GRU" and reset_after is None and not has_bias:
        reset_after = False  # without the argument, the file is older than the other form
    try:
        made = of_arrays(
            kind, [join_keras1(p) if joins else p for p in parts], reset_after, options
        )
    except ValueError as error:
        raise ValueError(f"{layer}: {error}") from error
    if made.hidden_size != config.get("units"):
        units = config.get("units")
        raise ValueError(f"{layer}: expected arrays of {units!r:.40} units, got {made.hidden_size}")
    return made


def of_arrays(
    kind: str, parts: Sequence[Sequence[np.ndarray]], reset_after: Any, options: dict[str, Any]
) -> Any:
    """Return a layer of kernel, recurrent kernel and maybe bias of each direction."""
    layer: list[dict[str, np.ndarray]] = []
    made: dict[str, bool] = {}
    for part in parts:
        kernel, recurrent, *bias = part
        arrays, made = arrays_of(kind, kernel, recurrent, *bias[:1], reset_after=reset_after)
        layer.append(arrays)
    return make(kind, [layer], **made, **options)


def alone(name: str, parts: Sequence[Sequence[np.ndarray]], version: Version, hints: Hints) -> Any:
    """Return the layer of a file that has arrays alone; `hints` say what these do not."""
    kernel, recurrent = parts[0][:2] if len(parts[0]) > 1 else (np.zeros(0), np.zeros(0))
    if kernel.ndim != 2 or recurrent.ndim != 2 or not len(recurrent):
        raise ValueError(f"{name}: expected a kernel and a recurrent kernel")
    gates, rest = divmod(kernel.shape[1], len(recurrent))
    if rest or gates not in BY_GATES:
        raise ValueError(
            f"{name}: expected 1, 3 or 4 gates of {len(recurrent)} units, got a kernel of shape "
            f"{kernel.shape}"
        )
    kind = BY_GATES[gates]
    options: dict[str, Any] = {"batch_first": hints.get("batch_first", True)}
    why = f"the file has {name} as arrays without configuration"
    if kind == "RNN":
        given = hints.need("nonlinearity", f"{why}; Keras' default is 'tanh'")
        options["nonlinearity"] = read_name("nonlinearity", given, version)
    else:
        gate = hints.need("recurrent_activation", f"{why}; it may be 'sigmoid' or 'hard_sigmoid'")
        gate = read_name("recurrent_activation", gate, version)
        activation = read_name("nonlinearity", hints.get("nonlinearity", "tanh"), version)
        options["activations"] = (gate, activation, activation)[: 3 if kind == "LSTM" else 2]
    needs = kind == "GRU" and len(parts[0]) < 3
    reset_after = hints.need("reset_after", f"{why} and without bias") if needs else None
    try:
        return of_arrays(kind, parts, reset_after, options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
