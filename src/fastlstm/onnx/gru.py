"""ONNX's GRU."""

from typing import Any

import numpy as np

from fastlstm.layers.module import Parameters
from fastlstm.onnx.attributes import Activations, read_switch
from fastlstm.onnx.direction import Direction, GRUDirection
from fastlstm.onnx.operator import Operator


class GRU(Operator):
    r"""ONNX's GRU with its weights: computes as `gru` does, and trains.

    With f, g the activations and ∗ element by element, step t of every direction computes

        z = f(W_z x + R_z H + Wb_z + Rb_z)
        r = f(W_r x + R_r H + Wb_r + Rb_r)
        h = g(W_h x + R_h (r ∗ H) + Rb_h + Wb_h)
        h = g(W_h x + r ∗ (R_h H + Rb_h) + Wb_h)   with linear_before_reset
        H' = (1 - z) ∗ h + z ∗ H

    (the operator's text in opset 22). Gates stand in the order z, r, h.

    Parameters
    ----------
    W : array (directions, 3 · hidden_size, input_size)
    R : array (directions, 3 · hidden_size, hidden_size)
    B : array (directions, 6 · hidden_size), optional
        The biases Wb, then Rb.
    activations : list of str, optional
        f, g, for each direction.
    linear_before_reset : 0 or 1
    **common
        The other attributes, dtypes, errors and notes are those of `fastlstm.onnx.LSTM`.
    """

    GATES = (1, 0, 2)  # the layers have r, z, n
    ACTIVATIONS = ("Sigmoid", "Tanh")

    def __init__(
        self, W: Any, R: Any, B: Any = None, *, linear_before_reset: int = 0, **common: Any
    ):
        self.linear_before_reset = read_switch("linear_before_reset", linear_before_reset)
        super().__init__(W, R, B, **common)

    def _layer(self, activations: Activations, parameters: Parameters, **options: Any) -> Direction:
        return GRUDirection(
            activations=activations, linear_before_reset=self.linear_before_reset, **options
        )


def gru(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """ONNX's GRU: its outputs Y, Y_h.

    W, R, B and attributes are as in `GRU`, which says what is computed; X, sequence_lens,
    initial_h and the outputs as in `lstm`.
    """
    outputs: tuple[np.ndarray, ...] = GRU(W, R, B, **attributes)(X, sequence_lens, initial_h)
    return outputs
