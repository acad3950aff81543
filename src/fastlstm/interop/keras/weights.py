"""Keras' recurrent weights in this library's form: other axes, order of gates and biases.

Keras has kernel [I, G H] and recurrent kernel [H, G H], the gates side by side: an LSTM's i, f, c,
o are torch's i, f, g, o; a GRU's are z, r, h. Keras 1 wrote one array for each gate, and
CuDNN's layers in TensorFlow wrote other axes, which the shape of their bias gives away:
``tf_keras/saving/legacy/hdf5_format.py``, `preprocess_weights_for_loading`.
"""

from collections.abc import Sequence

import numpy as np

from fastlstm.interop.recurrent import ICFO, ZRH, reorder

# Weights for a direction of `fastlstm.interop.recurrent.make`, and arguments of the layer.
Made = tuple[dict[str, np.ndarray], dict[str, bool]]


def lstm_arrays(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None = None) -> Made:
    """Return weights and arguments of an LSTM.

    Parameters
    ----------
    kernel : array (I, 4H)
    recurrent : array (H, 4H)
    bias : array (4H,) of `LSTM`, or (8H,) of `CuDNNLSTM`; or None

    Returns
    -------
    arrays : dict of str to array
        "weight_ih", "weight_hh" and "bias_ih"; "bias_hh" too from CuDNN, which has two biases.
    arguments : dict
        Of the layer: empty.

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    """
    H = _units(kernel, recurrent, 4)
    shape = None if bias is None else bias.shape
    if shape == (8 * H,):
        return _from_cudnn(kernel, recurrent, bias, 4), {}
    _check_bias(shape, [(4 * H,), (8 * H,)])
    return _transposed(kernel, recurrent, bias), {}


def gru_arrays(
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray | None = None,
    reset_after: bool | None = None,
) -> Made:
    """Return weights and arguments of a GRU.

    Parameters
    ----------
    kernel : array (I, 3H)
    recurrent : array (H, 3H)
    bias : array or None
        (3H,) with `reset_after` False, (2, 3H) with True, (6H,) of `CuDNNGRU`.
    reset_after : bool, optional
        Must be said if there is no bias, whose shape shows it.

    Returns
    -------
    arrays : dict of str to array
        "weight_ih", "weight_hh", "bias_ih"; "bias_hh" too with `reset_after`.
    arguments : dict
        Of the layer: "linear_before_reset".

    Raises
    ------
    ValueError
        The shapes do not fit each other or `reset_after`, or it must be said.
    """
    H = _units(kernel, recurrent, 3)
    shape = None if bias is None else bias.shape
    if shape is None:
        if reset_after is None:
            raise ValueError(
                "reset_after: expected True or False, since a GRU without bias does not show it"
            )
    else:
        shown = shape != (3 * H,)
        _check_bias(shape, [(3 * H,), (2, 3 * H), (6 * H,)])
        if reset_after is not None and reset_after != shown:
            raise ValueError(f"bias: expected that of reset_after={reset_after}, got shape {shape}")
        reset_after = shown
    if shape == (6 * H,):
        arrays = _from_cudnn(kernel, recurrent, bias, 3)
    elif bias is not None and bias.ndim == 2:
        arrays = _transposed(kernel, recurrent, bias[0]) | {"bias_hh": bias[1]}
    else:
        arrays = _transposed(kernel, recurrent, bias)
    arrays = {name: reorder(array, ZRH) for name, array in arrays.items()}
    return arrays, {"linear_before_reset": bool(reset_after)}


def rnn_arrays(kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None = None) -> Made:
    """Return weights and arguments of an RNN.

    Parameters
    ----------
    kernel : array (I, H)
    recurrent : array (H, H)
    bias : array (H,) or None

    Returns
    -------
    arrays : dict of str to array
        "weight_ih", "weight_hh", "bias_ih".
    arguments : dict
        Of the layer: empty.

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    """
    H = _units(kernel, recurrent, 1)
    _check_bias(None if bias is None else bias.shape, [(H,)])
    return _transposed(kernel, recurrent, bias), {}


def join_keras1(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return kernel, recurrent kernel and bias of the arrays of one layer of Keras 1.

    Parameters
    ----------
    arrays : for each gate W (I, H), U (H, H), b (H,)
        12 for an LSTM's i, c, f, o; 9 for a GRU's z, r, h.

    Raises
    ------
    ValueError
        There are other arrays.
    """
    if len(arrays) not in (9, 12):
        raise ValueError(f"expected 9 or 12 arrays of a layer of Keras 1, got {len(arrays)}")
    order = ICFO if len(arrays) == 12 else (0, 1, 2)
    joined = []
    for part, axes in enumerate((2, 2, 1)):
        blocks = [arrays[3 * gate + part] for gate in order]
        if len({block.shape for block in blocks}) > 1 or blocks[0].ndim != axes:
            shapes = [block.shape for block in blocks]
            raise ValueError(f"expected gates of one shape, of {axes} axes, got {shapes}")
        joined.append(np.concatenate(blocks, axis=-1))
    return joined


def _transposed(
    kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None
) -> dict[str, np.ndarray]:
    arrays = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    return arrays if bias is None else arrays | {"bias_ih": bias}


def _from_cudnn(
    kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray | None, gates: int
) -> dict[str, np.ndarray]:
    """CuDNN's layers: W of a gate, [H, I] in the order of C, under the shape [I, H]; R as here."""
    assert bias is not None
    kernels = np.split(kernel, gates, axis=1)
    bias_ih, bias_hh = np.split(bias, 2)
    return {
        "weight_ih": np.concatenate([block.reshape(block.shape[::-1]) for block in kernels]),
        "weight_hh": np.concatenate(np.split(recurrent, gates, axis=1)),
        "bias_ih": bias_ih,
        "bias_hh": bias_hh,
    }


def _units(kernel: np.ndarray, recurrent: np.ndarray, gates: int) -> int:
    """H, of kernels that fit each other."""
    for name, array in (("kernel", kernel), ("recurrent_kernel", recurrent)):
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{name}: expected a matrix, got shape {array.shape}")
    H = len(recurrent)
    for name, array in (("kernel", kernel), ("recurrent_kernel", recurrent)):
        if array.shape[1] != gates * H:
            raise ValueError(
                f"{name}: expected {gates * H} columns, {gates} times the {H} rows of the "
                f"recurrent kernel, got shape {array.shape}"
            )
    return H


def _check_bias(shape: tuple[int, ...] | None, wanted: list[tuple[int, ...]]) -> None:
    if shape is not None and shape not in wanted:
        texts = " or ".join(map(str, wanted))
        raise ValueError(f"bias: expected shape {texts}, got {shape}")
