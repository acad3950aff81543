"""A state dict of torch's as JSON, which RTNeural reads layer by layer.

Such a file says neither in which order its layers act nor what stands between them. So each is read
for itself, by the prefix of its names.
"""

from typing import Any

import numpy as np

from fastlstm.interop.arrays import read_layer
from fastlstm.interop.reading import MOST_MEMBERS, Hints, read_count, read_json_numbers, shown
from fastlstm.interop.recurrent import make_linear


def read(file: dict[str, Any], hints: Hints) -> Any:
    """Return the layer of these names, or with several layers that which `prefix` chooses."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    read_count("JSON: the number of names", len(file), most=MOST_MEMBERS)
    for name, value in file.items():
        if type(value) is not list:
            raise ValueError(
                f"{shown(name)}: expected arrays by name, or a model of NAM, RTNeural, AIDA-X or "
                f"Proteus, got {shown(value)}"
            )
        own = name.rpartition(".")[2]
        array = read_json_numbers(f"{shown(name)}", value)
        layers.setdefault(name.removesuffix(own), {})[own] = array
    prefix = hints.get("prefix")
    if prefix is None and len(layers) > 1:
        raise ValueError(f"prefix: expected that of one layer, one of {list(layers)!r:.200}")
    chosen = next(iter(layers)) if layers and prefix is None else prefix
    arrays = layers.get(chosen, {}) if isinstance(chosen, str) else {}
    if arrays.keys() in ({"weight"}, {"weight", "bias"}):
        return _linear(chosen, arrays)
    return read_layer(
        {start + own: array for start in layers for own, array in layers[start].items()}, hints
    )


def _linear(prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    weight, bias = arrays["weight"], arrays.get("bias")
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = {prefix + name: array.shape for name, array in arrays.items()}
        raise ValueError(f"{prefix}weight: expected those of a linear layer, got {shown(shapes)}")
    return make_linear(weight, bias)
