"""ONNX's RNN."""

from typing import Any

import numpy as np

from fastlstm.layers.module import Parameters
from fastlstm.onnx.attributes import Activations
from fastlstm.onnx.direction import Direction, RNNDirection
from fastlstm.onnx.operator import Operator


class RNN(Operator):
    r"""ONNX's RNN with its weights: computes as `rnn` does, and trains.

    With f the activation, step t of every direction computes

        H' = f(W x + R H + Wb + Rb)

    (the operator's text in opset 22).

    Parameters
    ----------
    W : array (directions, hidden_size, input_size)
    R : array (directions, hidden_size, hidden_size)
    B : array (directions, 2 · hidden_size), optional
        The biases Wb, then Rb.
    activations : list of str, optional
        f, for each direction.
    **common
        The other attributes, dtypes, errors and notes are those of `fastlstm.onnx.LSTM`.
    """

    GATES = (0,)
    ACTIVATIONS = ("Tanh",)

    def __init__(self, W: Any, R: Any, B: Any = None, **common: Any):
        super().__init__(W, R, B, **common)

    def _layer(self, activations: Activations, parameters: Parameters, **options: Any) -> Direction:
        return RNNDirection(nonlinearity=activations[0], **options)


def rnn(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """ONNX's RNN: its outputs Y, Y_h.

    W, R, B and attributes are as in `RNN`, which says what is computed; X, sequence_lens,
    initial_h and the outputs as in `lstm`.
    """
    outputs: tuple[np.ndarray, ...] = RNN(W, R, B, **attributes)(X, sequence_lens, initial_h)
    return outputs
