"""Neural Amp Modeler's ``.nam``: an LSTM whose numbers stand in one list.

For each layer [4H, I + H] over [x; h], gates i, f, g, o; the bias; h and c of the start; then the
head. The format: https://github.com/sdatkinson/NeuralAmpModelerCore, NAM/lstm.cpp.
"""

import re
from typing import Any

import numpy as np

from fastlstm.interop.reading import (
    MOST_LAYERS,
    Hints,
    member,
    read_count,
    read_json_numbers,
    shown,
)
from fastlstm.interop.recurrent import make, make_linear
from fastlstm.layers.sequential import Sequential

VERSIONS = (0, 5), (0, 7)  # the first and the last that have this layout


def read(file: dict[str, Any], hints: Hints) -> Sequential:
    """Return the LSTM, which learns its initial state, and the head."""
    architecture = member(file, "architecture", str)
    if architecture != "LSTM":
        raise ValueError(f"architecture: expected LSTM, got {shown(architecture)}")
    version = member(file, "version", str)
    numbers = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.\d{1,4}", version, re.ASCII)
    if not numbers or not VERSIONS[0] <= tuple(map(int, numbers.groups())) <= VERSIONS[1]:
        raise ValueError(f"version: expected 0.5.0 to 0.7, got {shown(version)}")
    config = member(file, "config", dict)
    I, H = (read_count(f"config.{n}", config.get(n)) for n in ("input_size", "hidden_size"))
    layers = read_count("config.num_layers", config.get("num_layers"), most=MOST_LAYERS)
    outputs = read_count("config.out_channels", config.get("out_channels", 1))
    if read_count("config.in_channels", config.get("in_channels", I)) != I:
        raise ValueError(f"config.in_channels: expected {I}, got {config['in_channels']}")
    weights = read_json_numbers("weights", member(file, "weights", list), None)
    rest = H * (4 * (H + 1) + 2)  # of a layer, without the columns for x
    expected = 4 * H * I + rest + (layers - 1) * (4 * H * H + rest) + outputs * (H + 1)
    if len(weights) != expected:
        raise ValueError(
            f"weights: expected {expected} numbers for input_size {I}, hidden_size {H}, "
            f"num_layers {layers} and {outputs} outputs, got {len(weights)}"
        )
    place = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal place
        start, place = place, place + int(np.prod(shape))
        return weights[start:place].reshape(shape)

    parts = []
    for layer in range(layers):
        columns = H if layer else I
        both = take(4 * H, columns + H)
        arrays = {"weight_ih": both[:, :columns], "weight_hh": both[:, columns:]}
        arrays |= {"bias_ih": take(4 * H), "initial_h": take(H), "initial_c": take(H)}
        parts.append([arrays])
    batch_first = hints.get("batch_first", False)
    lstm = make("LSTM", parts, batch_first=batch_first)
    return Sequential(lstm, make_linear(take(outputs, H), take(outputs)))
