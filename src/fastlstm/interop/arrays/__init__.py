"""`from_arrays`: the recurrent layer among named arrays."""

from collections.abc import Mapping
from typing import Any

from fastlstm.interop import rnnoise, tflite
from fastlstm.interop.arrays import of_keras, of_torch
from fastlstm.interop.arrays.group import Group
from fastlstm.interop.reading import Hints
from fastlstm.interop.recurrent import make

Facts = Mapping[str, Mapping[str, Any]]
WANTED = "weight_ih_l0, weight_ih, w_ih or recurrent_kernel"


def from_arrays(
    mapping: Mapping[str, Any],
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    nonlinearity: Any = None,
    recurrent_activation: Any = None,
    reset_after: bool | None = None,
    dtype: Any = None,
) -> Any:
    """Return the recurrent layer that is found among named arrays.

    The names say what it is: torch's ``weight_ih_l0``, ``weight_hh_l0_reverse`` and so on, those of
    a cell (``weight_ih``, also short, ``w_ih``), or Keras' ``kernel`` and ``recurrent_kernel``. All
    may have a prefix. Sizes, layers, directions and projection are those of the arrays. So are the
    names of TensorFlow Lite's operator (``W_i``: see `fastlstm.interop.tflite`) and of RNNoise's
    layers (``vad_gru.weights``: see `fastlstm.interop.rnnoise`).

    Parameters
    ----------
    mapping : mapping of str to array
        Arrays, torch tensors, or lists; also bfloat16. Those under other names, as of other layers,
        are not read.
    prefix : str, optional
        Which layer, where there are several: the beginning of its names.
    batch_first : bool, optional
        The layout of the layer's calls; False if None.
    nonlinearity : "tanh", "relu" or another activation, optional
        For an RNN, whose arrays do not say it.
    recurrent_activation : "sigmoid", "hard_sigmoid" or another activation, optional
        For Keras' LSTM and GRU, whose arrays do not say it. "hard_sigmoid" is 0.2 x + 0.5, as in
        Keras 1 and 2; that of Keras 3 is ``("hard_sigmoid", 1 / 6, 0.5)``.
    reset_after : bool, optional
        For Keras' GRU without bias: whether the reset gate acts after the recurrent product.
    dtype : float32 or float64, optional
        If None, float64 if all arrays are, and float32 otherwise.

    Returns
    -------
    LSTM, GRU, RNN or RNNoise
        The arrays of a cell make a layer of one direction, whose step is the cell's. A layer of
        Keras' `Bidirectional` returns both directions' features, as ``merge_mode="concat"`` does.

    Raises
    ------
    ValueError
        There is no recurrent layer or more than one, arrays of it are missing or do not fit each
        other, or an argument is missing or has no use.
    TypeError
        `mapping` is not a mapping of text to arrays of real numbers.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> arrays = fl.GRU(3, 5, rng=0).state_dict()  # the names and layouts of torch
    >>> arrays = {f"decoder.{name}": array for name, array in arrays.items()}
    >>> fl.from_arrays(arrays)
    GRU(3, 5)
    """
    if not isinstance(mapping, Mapping):
        advice = ", of which state_dict() gives one" if hasattr(mapping, "state_dict") else ""
        raise TypeError(
            f"mapping: expected a mapping of names to arrays, got {type(mapping).__name__}{advice}"
        )
    hints = Hints(
        prefix=prefix,
        batch_first=batch_first,
        nonlinearity=nonlinearity,
        recurrent_activation=recurrent_activation,
        reset_after=reset_after,
        dtype=dtype,
    )
    layer = read_layer(mapping, hints)
    hints.check_all_asked()
    return layer


def read_layer(
    arrays: Mapping[str, Any], hints: Hints, facts: Facts | None = None, keep: bool = False
) -> Any:
    """Return the one recurrent layer among a file's arrays, or that which `hints` chooses.

    `facts` has what a file says beside the arrays, by prefix: "batch_first", "nonlinearity". With
    `keep`, the layer may have the arrays themselves, since nobody else has them.
    """
    found = _find(arrays)
    if not found and arrays.keys() >= tflite.NEEDED:
        own = {name: arrays[name] for name in tflite.NAMES if name in arrays}
        return tflite.lstm(own, batch_first=bool(hints.get("batch_first")))
    if not found and arrays.keys() >= rnnoise.NEEDED:
        return rnnoise.from_arrays(arrays, batch_first=bool(hints.get("batch_first")))
    group = _choose(found, arrays, hints.get("prefix"))
    return _make(group, arrays, hints, facts or {}, keep)


def read_layers(
    arrays: Mapping[str, Any], hints: Hints, facts: Facts | None = None
) -> dict[str, Any]:
    """Return all recurrent layers among a file's arrays by their prefixes."""
    return {group.prefix: _make(group, arrays, hints, facts or {}) for group in _find(arrays)}


def _make(
    group: Group, arrays: Mapping[str, Any], hints: Hints, facts: Facts, keep: bool = False
) -> Any:
    part = group.read(arrays)
    said = facts.get(group.prefix, {})
    options = dict(part.options)
    for unsaid in part.unsaid:
        value = said.get(unsaid.name)
        if value is None:
            value = hints.need(unsaid.name, f"{unsaid.reason} (prefix {group.prefix!r})")
        options |= unsaid.options(value)
    options["batch_first"] = hints.get("batch_first", said.get("batch_first", False))
    try:
        return make(part.kind, part.layers, dtype=hints.get("dtype"), keep=keep, **options)
    except ValueError as error:
        raise ValueError(group.with_own_name(str(error))) from error


def _find(arrays: Mapping[str, Any]) -> list[Group]:
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"expected text as names of arrays, got {name!r:.60}")
    return [*of_torch.find(arrays), *of_keras.find(arrays)]


def _choose(found: list[Group], arrays: Mapping[str, Any], prefix: Any) -> Group:
    if not found:
        old = any("lstm_cell/kernel" in name for name in arrays)
        advice = "; for those of TensorFlow 1, see fastlstm.interop.tensorflow" if old else ""
        raise ValueError(
            f"expected the names of a recurrent layer ({WANTED} after any prefix), "
            f"got {list(arrays)!r:.300}{advice}"
        )
    chosen = found
    if prefix is not None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix: expected text, got {prefix!r:.60}")
        exact = [group for group in found if group.prefix == prefix]
        chosen = exact or [group for group in found if group.prefix.startswith(prefix)]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{group.prefix!r} ({group.describe(arrays)})" for group in chosen or found)
    if not chosen:
        raise ValueError(f"prefix: no recurrent layer's names begin with {prefix!r}; got {known}")
    raise ValueError(f"prefix: expected that of one recurrent layer, got several: {known}")
