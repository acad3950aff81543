"""ONNX's RNN."""

from collections.abc import Container
from typing import Any

import numpy as np

from fastlstm.kernels.arguments import RNNOptions
from fastlstm.layers.activations import read_activations
from fastlstm.layers.rnn import Cell
from fastlstm.onnx.attributes import Activations
from fastlstm.onnx.operator import Operator, takes_attributes_of


@takes_attributes_of(Operator)
class RNN(Operator):
    r"""ONNX's RNN as an object with weights: computes what `rnn` does, and can be trained.

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
    activation_alpha, activation_beta, clip, direction, hidden_size, layout
        As in `fastlstm.onnx.LSTM`, which also describes dtypes, errors and notes.
    """

    gate_order = (0,)
    ACTIVATIONS = ("Tanh",)

    def __init__(self, W: Any, R: Any, B: Any = None, **common: Any):
        super().__init__(W, R, B, **common)

    def _cell(self, activations: Activations, parameters: Container[str]) -> Cell:
        bound = np.inf if self.clip is None else self.clip
        (activation,) = read_activations("activations", activations, 1)
        options = RNNOptions(activation, bound)
        return Cell(self.input_size, self.hidden_size, "B" in parameters, options)


@takes_attributes_of(RNN)
def rnn(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """Compute ONNX's RNN, and return its outputs Y, Y_h.

    `RNN` describes the computation, W, R, B and the attributes; `lstm` describes X, sequence_lens,
    initial_h and the outputs.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> X, W, R = np.ones((5, 2, 3)), np.ones((1, 4, 3)), np.ones((1, 4, 4))
    >>> [output.shape for output in fl.onnx.rnn(X, W, R, hidden_size=4)]
    [(5, 1, 2, 4), (1, 2, 4)]
    """
    outputs: tuple[np.ndarray, ...] = RNN(W, R, B, **attributes)(X, sequence_lens, initial_h)
    return outputs
