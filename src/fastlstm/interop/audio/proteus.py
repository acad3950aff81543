"""Proteus and others of GuitarML: torch's arrays ``rec.…`` and ``lin.…``, with their sizes.

The model is ``SimpleRNN`` of https://github.com/Alec-Wright/CoreAudioML, networks.py.
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
from fastlstm.interop.recurrent import KINDS, make, make_linear
from fastlstm.layers.sequential import Sequential

PARTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def read(file: dict[str, Any], hints: Hints) -> Any:
    """Return the recurrent layer and the linear one, and around both the skip connection."""
    said, state = member(file, "model_data", dict), member(file, "state_dict", dict)
    model = member(said, "model", str, "model_data")
    if model != "SimpleRNN":
        raise ValueError(f"model_data.model: expected SimpleRNN, got {shown(model)}")
    kind = member(said, "unit_type", str, "model_data")
    if kind not in KINDS:
        raise ValueError(f"model_data.unit_type: expected LSTM, GRU or RNN, got {shown(kind)}")
    sizes = ("input_size", "hidden_size", "output_size")
    I, H, outputs = (read_count(f"model_data.{name}", said.get(name)) for name in sizes)
    layers = read_count("model_data.num_layers", said.get("num_layers"), most=MOST_LAYERS)
    skip = min(read_count("model_data.skip", said.get("skip"), minimum=0), I)
    if skip not in (0, 1, outputs):
        raise ValueError(f"model_data.skip: expected 0, 1 or {outputs}, got {skip}")
    has_bias = said.get("bias_fl", True)
    if type(has_bias) not in (bool, int):
        raise ValueError(f"model_data.bias_fl: expected true or false, got {shown(has_bias)}")

    gates = KINDS[kind][1]
    left = dict(state)
    shapes = {"weight_hh": (gates * H, H), "bias_ih": (gates * H,), "bias_hh": (gates * H,)}

    def take(name: str, *shape: int) -> np.ndarray:
        return read_json_numbers(f"state_dict.{name}", left.pop(name, None), *shape)

    parts = []
    for layer in range(layers):
        shapes["weight_ih"] = gates * H, H if layer else I
        parts.append([{part: take(f"rec.{part}_l{layer}", *shapes[part]) for part in PARTS}])
    weight = take("lin.weight", outputs, H)
    bias = take("lin.bias", outputs) if has_bias else None
    if left:
        raise ValueError(f"state_dict: expected no other names, got {shown(list(left))}")
    batch_first = hints.get("batch_first", False)
    together = Sequential(make(kind, parts, batch_first=batch_first), make_linear(weight, bias))
    return Sequential(Skip(together, skip)) if skip else together
