"""The arrays of a layer in Keras' layout."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.interop.recurrent import ZRH, reorder
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.gru import GRU
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM
from fastlstm.layers.rnn import RNN

WITHOUT = (
    *("proj_size", "peepholes", "coupled", "layer_norm", "clip", "zoneout"),
    "learn_initial_state",
)


def to_arrays(layer: Any) -> list[np.ndarray]:
    """Return the arrays of a layer as its counterpart in Keras has them.

    Parameters
    ----------
    layer : LSTM, GRU, RNN, Linear or Embedding
        A recurrent layer of one layer, without an option that Keras lacks.

    Returns
    -------
    list of array
        What `set_weights` of Keras' layer takes: kernel, recurrent kernel and bias of an `LSTM`,
        `GRU` or `SimpleRNN`, for `Bidirectional` first those of the forward direction; kernel and
        bias of `Dense`; the table of `Embedding`. A layer that was read from Keras gives the same
        bits. Two biases are added where Keras has one: everywhere but in a GRU with
        `linear_before_reset`, which is Keras' `reset_after`.

    Raises
    ------
    TypeError
        The layer has no counterpart.
    ValueError
        An option has none, or there are several layers; the message names it.

    Examples
    --------
    >>> import fastlstm as fl
    >>> arrays = fl.interop.keras.to_arrays(fl.GRU(3, 5, bidirectional=True))
    >>> [array.shape for array in arrays]
    [(3, 15), (5, 15), (2, 15), (3, 15), (5, 15), (2, 15)]
    """
    if isinstance(layer, Embedding):
        return [layer.weight.copy()]
    if isinstance(layer, Linear):
        kernel = np.ascontiguousarray(layer.weight.T)
        return [kernel] if layer.bias is None else [kernel, layer.bias.copy()]
    if not isinstance(layer, (LSTM, GRU, RNN)):
        raise TypeError(
            "layer: expected LSTM, GRU, RNN, Linear or Embedding, which Keras has too, got "
            f"{type(layer).__name__}"
        )
    if layer.num_layers > 1:
        raise ValueError(f"layer: expected one layer, as Keras has, got {layer.num_layers}")
    for name in WITHOUT:
        if np.any(getattr(layer, name, None)):
            raise ValueError(f"layer: {name} has no counterpart in Keras")
    parameters = layer.parameters()
    suffixes = ("_l0", "_l0_reverse") if layer.bidirectional else ("_l0",)
    return [array for suffix in suffixes for array in _of_direction(layer, parameters, suffix)]


def _of_direction(
    layer: Any, parameters: Mapping[str, np.ndarray], suffix: str
) -> list[np.ndarray]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    arrays = {name: parameters[name + suffix] for name in names if name + suffix in parameters}
    if isinstance(layer, GRU):
        arrays = {name: reorder(array, ZRH) for name, array in arrays.items()}
    found = [np.ascontiguousarray(arrays[name].T) for name in names[:2]]
    if layer.bias:
        first, second = arrays["bias_ih"], arrays["bias_hh"]
        if isinstance(layer, GRU) and layer.linear_before_reset:
            found.append(np.stack([first, second]))
        else:
            found.append(first.copy() if not second.any() else first + second)
    return found
