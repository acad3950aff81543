"""ONNX's attributes of a recurrent node."""

from typing import Any

import numpy as np

from fastlstm.layers import gru, lstm_options
from fastlstm.layers.activations import PARAMETERS, as_written


def attributes_of(cells: tuple[Any, ...], prefix: str) -> dict[str, Any]:
    """The attributes of a node that its cells, one for each direction, have."""
    first = cells[0]
    functions: list[Any] = []
    attributes: dict[str, Any] = {}
    for cell in cells:
        if isinstance(cell, lstm_options.Cell):
            _check_lstm(cell, prefix)
            functions += cell.variant.activations
        elif isinstance(cell, gru.Cell):
            functions += [cell.options.gate, cell.options.candidate]
        else:
            functions += [cell.options.activation]
    if isinstance(first, lstm_options.Cell):
        clip = first.variant.clip
        if first.variant.coupled:
            attributes["input_forget"] = 1
    else:
        clip = None if np.isinf(first.options.clip) else first.options.clip
    if isinstance(first, gru.Cell):
        attributes["linear_before_reset"] = int(first.options.linear_before_reset)
    if clip is not None:
        attributes["clip"] = float(clip)
    return attributes | _functions(functions)


def _functions(functions: list[Any]) -> dict[str, Any]:
    """ONNX's attributes of activations."""
    names, alphas, betas = [], [], []
    for function in functions:
        written = as_written(function)
        kind, *given = (written,) if isinstance(written, str) else written
        numbers = [float(value) for value in given or PARAMETERS[kind]]
        names.append("".join(word.capitalize() for word in kind.split("_")))
        alphas += numbers[:1]
        betas += numbers[1:]
    attributes: dict[str, Any] = {"activations": names}
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes


def _check_lstm(cell: lstm_options.Cell, prefix: str) -> None:
    """Raise ValueError for options that ONNX's LSTM does not have."""
    for option, refused in {
        f"proj_size={cell.P}": cell.P != cell.H,
        "layer_norm=True": cell.variant.layer_norm,
        f"zoneout={cell.variant.zoneout}": any(cell.variant.zoneout),
    }.items():
        if refused:
            raise ValueError(f"model: ONNX's LSTM has no counterpart of {option}{at(prefix)}")


def at(prefix: str) -> str:
    """Where a layer is in a model, for the end of a message."""
    return f" at {prefix.rstrip('.')}" if prefix else ""
