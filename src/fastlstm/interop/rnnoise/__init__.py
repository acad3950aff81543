"""RNNoise: how loud each band of noisy speech is to be, and whether anyone speaks.

Files are ``.rnnn`` of rnnoise-nu, which ffmpeg's ``arnndn`` reads too: a line with the version,
then integers, which are 256 times the values.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_plain
from fastlstm.interop.reading import Hints, reading
from fastlstm.interop.recurrent import ZRH, make, make_linear, reorder
from fastlstm.interop.rnnoise.network import INPUTS, NAMES, RNNoise
from fastlstm.layers.activation import Activation
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module
from fastlstm.safetensors import Path

__all__ = ["RNNoise", "from_arrays", "read"]

HEADER = re.compile(rb"rnnoise-nu model file version 1\s")
WIDEST, LONGEST = 128, 1 << 22  # neurons of a layer, as in rnnoise-nu, and bytes of a file
NEEDED = {f"{name}.{part}" for name in NAMES for part in ("weights", "bias")}
SCALE = 256  # of the files' integers
FUNCTIONS = "tanh", "sigmoid", "relu"  # by their number in files
USUAL = dict(zip(NAMES, ("tanh", "tanh", "relu", "tanh", "sigmoid", "sigmoid"), strict=True))


def read(path: Path, hints: Hints) -> RNNoise:
    """Return the network of a ``.rnnn`` file."""
    with open(path, "rb") as file, reading(path, "RNNoise"):
        text = file.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise ValueError(f"expected at most {LONGEST} bytes")
        header = HEADER.match(text)
        if not header:
            raise ValueError(f"version: expected rnnoise-nu's version 1, got {text[:40]!r}")
        numbers = _read_integers(text[header.end() :])
        arrays, functions, place = {}, {}, 0

        def take(field: str, count: int) -> np.ndarray:
            nonlocal place
            start, place = place, place + count
            if place > len(numbers):
                raise ValueError(
                    f"{field}: expected {count} integers, got {len(numbers) - start}, "
                    "up to the end of the file"
                )
            return numbers[start:place]

        for name in NAMES:
            I, H, function = map(int, take(f"{name}: sizes", 3))
            if not 1 <= min(I, H) <= max(I, H) <= WIDEST:
                raise ValueError(f"{name}: expected sizes from 1 to {WIDEST}, got {I} and {H}")
            if not 0 <= function < len(FUNCTIONS):
                raise ValueError(f"{name}: expected an activation 0 to 2, got {function}")
            functions[name] = FUNCTIONS[function]
            columns = 3 * H if name.endswith("_gru") else H
            rows = {"weights": I, "recurrent": H} if columns > H else {"weights": I}
            for part, size in rows.items():
                array = take(f"{name}.{part}", size * columns)
                arrays[f"{name}.{part}"] = array.reshape(size, columns)
            arrays[f"{name}.bias"] = take(f"{name}.bias", columns)
        if place != len(numbers):
            raise ValueError(f"expected no more than {place} integers, got {len(numbers)}")
        batch_first = hints.get("batch_first", False)
        return from_arrays(arrays, activations=functions, batch_first=batch_first)


def _read_integers(text: bytes) -> np.ndarray:
    wrong = re.search(rb"[^-\d\s]|[^\s]-|-(?!\d)|\d{5}", text)
    if wrong:
        around = text[max(0, wrong.start() - 8) : wrong.end() + 8]
        raise ValueError(f"expected integers of 8 bits, got {around!r}")
    # Without weights, the text is blank, which fromstring takes for one number.
    return np.fromstring(text, np.int16, sep=" ") if text.strip() else np.empty(0, np.int16)


def from_arrays(
    mapping: Mapping[str, Any],
    *,
    activations: Mapping[str, str] | None = None,
    batch_first: bool = False,
) -> RNNoise:
    """Return the network of the integers of a file, by layer and part.

    Parameters
    ----------
    mapping : mapping of str to array of integers
        "input_dense.weights" (I, H) and "input_dense.bias" (H,), as well for denoise_output and
        vad_output; "vad_gru.weights" (I, 3H), "vad_gru.recurrent" (H, 3H), "vad_gru.bias" (3H,),
        gates z, r, h, as well for noise_gru and denoise_gru. Values are these over 256. Arrays of
        other names are not read.
    activations : mapping of str to "tanh", "sigmoid" or "relu", optional
        Those of layers that differ from RNNoise's own: "relu" in noise_gru, "sigmoid" in outputs,
        and "tanh" elsewhere.
    batch_first : bool
        Whether x is (B, T, F) instead of (T, B, F).

    Returns
    -------
    RNNoise

    Raises
    ------
    ValueError
        An array is missing, or their shapes do not fit each other.
    TypeError
        An array has no integers.
    """
    functions = {**USUAL, **(activations or {})}
    if unknown := sorted(functions.keys() - USUAL.keys()):
        raise ValueError(f"activations: expected names of layers, got {unknown!r:.80}")
    parts: dict[str, Module] = {}
    widths: dict[str, int] = {}
    for name in NAMES:
        W, bias = (_read_array(f"{name}.{part}", mapping) for part in ("weights", "bias"))
        is_gru = name.endswith("_gru")
        H, rest = divmod(W.shape[1], 3) if is_gru else (W.shape[1], 0)
        if rest or not W.size:
            raise ValueError(f"{name}.weights: expected 3 blocks of columns, got shape {W.shape}")
        widths.setdefault("x", len(W))
        inputs = sum(widths[part] for part in INPUTS[name])
        check_shape(f"{name}.weights", W, inputs, 1 if name == "vad_output" else W.shape[1])
        check_shape(f"{name}.bias", bias, W.shape[1])
        widths[name], function = H, functions[name]
        if function not in FUNCTIONS:
            raise ValueError(f"activations: expected one of {FUNCTIONS}, got {function!r:.60}")
        if is_gru:
            R = _read_array(f"{name}.recurrent", mapping)
            check_shape(f"{name}.recurrent", R, H, 3 * H)
            arrays = {"weight_ih": W.T, "weight_hh": R.T, "bias_ih": bias}
            parts[name] = make(
                "GRU",
                [[{part: reorder(array, ZRH) for part, array in arrays.items()}]],
                linear_before_reset=False,
                activations=("sigmoid", function),
                batch_first=batch_first,
            )
        else:
            parts[name] = Sequential(make_linear(W.T, bias), Activation(function))
    return RNNoise(**parts)


def _read_array(name: str, mapping: Mapping[str, Any]) -> np.ndarray:
    if name not in mapping:
        raise ValueError(f"{name}: expected an array, got none")
    array = read_plain(name, mapping[name])
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, as files have them, got dtype {array.dtype}")
    if array.ndim != (1 if name.endswith("bias") else 2):
        raise ValueError(f"{name}: expected a matrix or a vector, got shape {array.shape}")
    if array.size and not -128 <= array.min() <= array.max() <= 127:
        got = f"{array.min()} to {array.max()}"
        raise ValueError(f"{name}: expected integers from -128 to 127, got {got}")
    return (array / SCALE).astype(np.float32)
