"""Recurrent layers made of the arrays of a file, whatever format they came from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_array, read_dtype, read_numbers
from fastlstm.engine.initial import undrawn
from fastlstm.layers.gru import GRU
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM
from fastlstm.layers.rnn import RNN

KINDS: dict[str, tuple[type[Any], int]] = {"LSTM": (LSTM, 4), "GRU": (GRU, 3), "RNN": (RNN, 1)}
BY_GATES = {gates: kind for kind, (_, gates) in KINDS.items()}
# The blocks of other orders of gates that make up this library's: LSTM i, f, g, o; GRU r, z, n.
IJFO = ICFO = (0, 2, 1, 3)  # TensorFlow 1, where j is the candidate; Keras 1, where c is
ZRH = (1, 0, 2)  # ONNX and Keras


def reorder(array: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Return `array` with its equal blocks of rows in another order."""
    parts = np.split(array, len(blocks))
    return np.concatenate([parts[block] for block in blocks])


def dtype_of(arrays: Mapping[str, np.ndarray]) -> np.dtype:
    """float64 if all arrays are, and float32 otherwise."""
    is_double = all(array.dtype == np.float64 for array in arrays.values())
    return np.dtype(np.float64 if is_double and arrays else np.float32)


def make(
    kind: str,
    layers: Sequence[Sequence[Mapping[str, Any]]],
    *,
    dtype: Any = None,
    keep: bool = False,
    **options: Any,
) -> Any:
    """Return a layer of these parameters.

    Parameters
    ----------
    kind : "LSTM", "GRU" or "RNN"
    layers : for each layer, for each direction, a mapping
        From "weight_ih", "weight_hh", and where the layer has them "bias_ih", "bias_hh",
        "weight_hr", "weight_peephole", "initial_h", "initial_c", to an array in this library's
        form and order of gates. With "bias_ih" alone, the layer has a single bias.
    dtype : float32 or float64, optional
        If None, that of the arrays: see `dtype_of`.
    keep : bool
        Whether the layer may have the arrays themselves, since nobody else has them.
    **options : arguments of the layer's constructor

    Raises
    ------
    ValueError
        The arrays do not fit each other; the message names them as `state_dict` does.
    """
    page, gates = KINDS[kind]
    named = {}
    for layer, parts in enumerate(layers):
        for direction, arrays in enumerate(parts):
            suffix = f"_l{layer}{'_reverse' if direction else ''}"
            for name, array in arrays.items():
                named[name + suffix] = read_numbers(name + suffix, array)
    directions = len(layers[0])
    widths, inputs, outputs, features = [], 0, 0, 0
    for layer in range(len(layers)):
        W, R = (_matrix(named, f"weight_{part}_l{layer}") for part in ("ih", "hh"))
        H, rest = divmod(len(R), gates)
        if rest or not H:
            raise ValueError(
                f"weight_hh_l{layer}: expected {gates} blocks of rows of the same size, for the "
                f"gates of a {kind}, got {len(R)} rows"
            )
        widths.append(H)
        if not layer:
            inputs, outputs = W.shape[1], R.shape[1]
        elif W.shape[1] != features:
            raise ValueError(
                f"weight_ih_l{layer}: expected {features} columns, the outputs of the layer "
                f"before, got {W.shape[1]}"
            )
        features = directions * R.shape[1]
    first = layers[0][0]
    dtype = dtype_of(named) if dtype is None else read_dtype("dtype", dtype)
    bias: Any = "bias_ih" in first and (True if "bias_hh" in first else "single")
    if "weight_hr" in first:
        options["proj_size"] = outputs
    if "weight_peephole" in first:
        options["peepholes"] = True
    if "initial_h" in first:
        options["learn_initial_state"] = True
    made = page(
        inputs,
        widths[0] if len(set(widths)) == 1 else widths,
        len(layers),
        bias=bias,
        bidirectional=directions == 2,
        dtype=dtype,
        rng=undrawn(dtype),
        **options,
    )
    made._rng = np.random.default_rng(0)
    parameters = made.parameters()
    if bias == "single":
        named |= {name: np.zeros_like(parameters[name]) for name in parameters if "bias_hh" in name}
    if missing := [name for name in parameters if name not in named]:
        raise ValueError(f"expected arrays {missing}, which the other layers or directions have")
    if unknown := [name for name in named if name not in parameters]:
        raise ValueError(f"expected no arrays {unknown}, which other layers or directions lack")
    for name, old in parameters.items():
        array = read_array(name, named[name], old.dtype)
        is_new = (keep or array is not named[name]) and array.base is None
        named[name] = np.ascontiguousarray(array) if is_new else np.array(array, order="C")
        check_shape(name, named[name], *old.shape)
    made.assign(named)
    return made


def make_linear(weight: np.ndarray, bias: np.ndarray | None = None) -> Linear:
    """Return a linear layer of a weight (out, in) and a bias (out,), in the dtype of the weight."""
    dtype = dtype_of({"weight": weight})
    made = Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=dtype, rng=0)
    made.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return made


def _matrix(named: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in named:
        raise ValueError(f"{name}: expected an array, got none")
    check_matrix(name, named[name])
    return named[name]


def check_matrix(name: str, array: np.ndarray) -> None:
    """Raise ValueError unless the array is a matrix that is not empty."""
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name}: expected a matrix, got shape {array.shape}")
