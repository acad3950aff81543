"""ONNX's GRU."""

from collections.abc import Container
from typing import Any

import numpy as np

from fastlstm.kernels.arguments import GRUOptions
from fastlstm.layers.activations import read_activations
from fastlstm.layers.gru import Cell
from fastlstm.onnx.attributes import Activations, read_switch
from fastlstm.onnx.operator import Operator, takes_attributes_of


@takes_attributes_of(Operator)
class GRU(Operator):
    r"""ONNX's GRU as an object with weights: computes what `gru` does, and can be trained.

    With f, g the activations and ∗ element by element, step t of every direction computes

        z = f(W_z x + R_z H + Wb_z + Rb_z)
        r = f(W_r x + R_r H + Wb_r + Rb_r)
        h = g(W_h x + R_h (r ∗ H) + Rb_h + Wb_h)
        h = g(W_h x + r ∗ (R_h H + Rb_h) + Wb_h)   with linear_before_reset
        H' = (1 - z) ∗ h + z ∗ H

    (the operator's text in opset 22). The order of gates is z, r, h.

    Parameters
    ----------
    W : array (directions, 3 · hidden_size, input_size)
    R : array (directions, 3 · hidden_size, hidden_size)
    B : array (directions, 6 · hidden_size), optional
        The biases Wb, then Rb.
    activations : list of str, optional
        f, g, for each direction.
    linear_before_reset : 0 or 1
    activation_alpha, activation_beta, clip, direction, hidden_size, layout
        As in `fastlstm.onnx.LSTM`, which also describes dtypes, errors and notes.
    """

    gate_order = (1, 0, 2)  # the layers' order is r, z, n
    ACTIVATIONS = ("Sigmoid", "Tanh")

    def __init__(
        self, W: Any, R: Any, B: Any = None, *, linear_before_reset: int = 0, **common: Any
    ):
        self.linear_before_reset = read_switch("linear_before_reset", linear_before_reset)
        super().__init__(W, R, B, **common)

    def _cell(self, activations: Activations, parameters: Container[str]) -> Cell:
        bound = np.inf if self.clip is None else self.clip
        gate, candidate = read_activations("activations", activations, 2)
        options = GRUOptions(gate, candidate, bound, self.linear_before_reset)
        return Cell(self.input_size, self.hidden_size, "B" in parameters, options)


@takes_attributes_of(GRU)
def gru(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """Compute ONNX's GRU, and return its outputs Y, Y_h.

    `GRU` describes the computation, W, R, B and the attributes; `lstm` describes X, sequence_lens,
    initial_h and the outputs.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> X, W, R = np.ones((5, 2, 3)), np.ones((1, 12, 3)), np.ones((1, 12, 4))
    >>> [output.shape for output in fl.onnx.gru(X, W, R, hidden_size=4)]
    [(5, 1, 2, 4), (1, 2, 4)]
    """
    outputs: tuple[np.ndarray, ...] = GRU(W, R, B, **attributes)(X, sequence_lens, initial_h)
    return outputs
