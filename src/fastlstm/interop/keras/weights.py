"""Keras' recurrent weights in this library's form: other axes, order of gates and biases.

Keras has kernel [I, G H] and recurrent kernel [H, G H], the gates side by side: an LSTM's i, f, c,
o are torch's i, f, g, o; a GRU's are z, r, h. Keras 1 wrote one array for each gate, and
CuDNN's layers in TensorFlow wrote other axes, which the shape of their bias gives away:
``tf_keras/saving/legacy/hdf5_format.py``, `preprocess_weights_for_loading`.
"""

from collections.abc import Sequence

import numpy as np

from fastlstm.interop.recurrent import ICFO, KINDS, ZRH, check_matrix, reorder

# Weights for a direction of `fastlstm.interop.recurrent.make`, and arguments of the layer.
Made = tuple[dict[str, np.ndarray], dict[str, bool]]


def arrays_of(
    kind: str,
    kernel: np.ndarray,
    recurrent: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    reset_after: bool | None = None,
) -> Made:
    """Return weights and arguments of a layer of one direction.

    Parameters
    ----------
    kind : "LSTM", "GRU" or "RNN"
    kernel, recurrent : arrays (I, G H) and (H, G H)
    bias : array or None
        (G H,); (2, 3H) of a GRU with `reset_after`; (2 G H,) of `CuDNNLSTM` and `CuDNNGRU`.
    reset_after : bool, optional
        Of a GRU. Must be said if there is no bias, whose shape shows it.

    Returns
    -------
    arrays : dict of str to array
        "weight_ih", "weight_hh", "bias_ih"; "bias_hh" too from CuDNN and with `reset_after`, which
        have two biases.
    arguments : dict
        Of the layer: a GRU's "linear_before_reset".

    Raises
    ------
    ValueError
        The shapes do not fit each other or `reset_after`, or it must be said.
    """
    gates = KINDS[kind][1]
    H = _units(kernel, recurrent, gates)
    shape, single, of_cudnn = None if bias is None else bias.shape, (gates * H,), (2 * gates * H,)
    wanted = {"LSTM": (single, of_cudnn), "GRU": (single, (2, 3 * H), of_cudnn), "RNN": (single,)}
    if shape is not None and shape not in wanted[kind]:
        texts = " or ".join(map(str, wanted[kind]))
        raise ValueError(f"bias: expected shape {texts}, got {shape}")
    if bias is not None and shape == of_cudnn:
        arrays = _from_cudnn(kernel, recurrent, bias, gates)
    else:
        arrays = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
        if bias is not None:
            names = ("bias_ih", "bias_hh") if bias.ndim == 2 else ("bias_ih",)
            arrays |= zip(names, np.atleast_2d(bias), strict=True)
    if kind != "GRU":
        return arrays, {}
    if shape is None and reset_after is None:
        raise ValueError(
            "reset_after: expected True or False, since a GRU without bias does not show it"
        )
    shown = reset_after if shape is None else shape != single
    if reset_after not in (None, shown):
        raise ValueError(f"bias: expected that of reset_after={reset_after}, got shape {shape}")
    arrays = {name: reorder(array, ZRH) for name, array in arrays.items()}
    return arrays, {"linear_before_reset": bool(shown)}


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


def _from_cudnn(
    kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, gates: int
) -> dict[str, np.ndarray]:
    """CuDNN's layers: W of a gate, [H, I] in the order of C, under the shape [I, H]; R as here."""
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
    named = {"kernel": kernel, "recurrent_kernel": recurrent}
    for name, array in named.items():
        check_matrix(name, array)
    H = len(recurrent)
    for name, array in named.items():
        if array.shape[1] != gates * H:
            raise ValueError(
                f"{name}: expected {gates * H} columns, {gates} times the {H} rows of the "
                f"recurrent kernel, got shape {array.shape}"
            )
    return H
