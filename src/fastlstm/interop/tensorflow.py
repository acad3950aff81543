"""Arrays of TensorFlow 1: those of `BasicLSTMCell` and its like in checkpoints."""

from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_number, read_numbers
from fastlstm.interop.recurrent import IJFO, make, reorder
from fastlstm.layers.lstm import LSTM


def lstm(kernel: Any, bias: Any, *, forget_bias: float = 1.0, batch_first: bool = False) -> LSTM:
    """Return the LSTM of a `BasicLSTMCell`, or of an `LSTMCell` or `LSTMBlockCell` of its form.

    That is, without peepholes, projection and clip, for which they have more arrays and options.

    Parameters
    ----------
    kernel : array (I + H, 4H)
        "kernel", or "weights" in the oldest checkpoints: rows for x, then for h; gates in the order
        i, j, f, o, of which j is the candidate.
    bias : array (4H,)
        "bias" or "biases".
    forget_bias : float
        The cell's argument of this name, which it adds to the forget gate in every step. It is not
        in checkpoints. TensorFlow's default is 1.
    batch_first : bool
        Whether x is (B, T, I), as in `dynamic_rnn` without `time_major`, instead of (T, B, I).

    Returns
    -------
    LSTM
        With a single bias, in which the forget bias is. float64 if both arrays are.

    Raises
    ------
    ValueError
        The shapes do not fit each other.
    TypeError
        An argument is not of real numbers.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> fl.interop.tensorflow.lstm(np.ones((3 + 5, 4 * 5)), np.zeros(4 * 5))
    LSTM(3, 5, bias='single', dtype='float64')
    """
    kernel, bias = read_numbers("kernel", kernel), read_numbers("bias", bias)
    H, rest = divmod(kernel.shape[1], 4) if kernel.ndim == 2 else (0, 0)
    I = len(kernel) - H if kernel.ndim else 0
    if rest or H < 1 or I < 1:
        raise ValueError(
            f"kernel: expected shape (I + H, 4H), one row for each input and unit, "
            f"got {kernel.shape}"
        )
    check_shape("bias", bias, 4 * H)
    bias = bias.astype(np.result_type(bias, np.float32))  # an integer has no place for forget_bias
    added = np.repeat([0, 0, read_number("forget_bias", forget_bias, -np.inf, np.inf), 0], H)
    arrays = {
        "weight_ih": kernel[:I].T,
        "weight_hh": kernel[I:].T,
        "bias_ih": bias + added.astype(bias.dtype),
    }
    layers = [[{name: reorder(array, IJFO) for name, array in arrays.items()}]]
    made: LSTM = make("LSTM", layers, batch_first=batch_first)
    return made
