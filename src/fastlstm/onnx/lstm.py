"""ONNX's LSTM."""

from typing import Any

import numpy as np

from fastlstm.layers.module import Gradients, Parameters
from fastlstm.onnx.attributes import Activations, read_switch
from fastlstm.onnx.direction import Direction, LSTMDirection
from fastlstm.onnx.operator import Operator, OperatorTape


class LSTM(Operator):
    r"""ONNX's LSTM with its weights: computes as `lstm` does, and trains.

    With f, g, h the activations and ∗ element by element, step t of every direction computes

        i = f(W_i x + R_i H + P_i ∗ C + Wb_i + Rb_i)
        f = f(W_f x + R_f H + P_f ∗ C + Wb_f + Rb_f), or 1 - i with input_forget
        c = g(W_c x + R_c H + Wb_c + Rb_c)
        C' = f ∗ C + i ∗ c
        o = f(W_o x + R_o H + P_o ∗ C' + Wb_o + Rb_o)
        H' = o ∗ h(C')

    (the operator's text in opset 22). Gates stand in the order i, o, f, c.

    Parameters
    ----------
    W : array (directions, 4 · hidden_size, input_size)
        float16, float32 or float64; every other input has the same dtype. (NumPy has no bfloat16,
        which opset 22 allows.)
    R : array (directions, 4 · hidden_size, hidden_size)
    B : array (directions, 8 · hidden_size), optional
        The biases Wb, then Rb.
    P : array (directions, 3 · hidden_size), optional
        Peepholes of i, o, f.
    activation_alpha, activation_beta : lists of numbers, optional
        For the activations that take one, in their order; those left without have the value of
        ONNX's operator of that name (Affine 1 and 0, LeakyRelu 0.01, ThresholdedRelu 1, ScaledTanh
        1 and 1, HardSigmoid 0.2 and 0.5, Elu 1).
    activations : list of str, optional
        f, g, h, for each direction: Sigmoid, Tanh, Relu, Affine, LeakyRelu, ThresholdedRelu,
        ScaledTanh, HardSigmoid, Elu, Softsign or Softplus, in any case.
    clip : float, optional
        What goes into f and g is cut to ±clip. (What goes into h is not, as in ONNX Runtime; the
        operator's text could also be read to say so.)
    direction : "forward", "reverse" or "bidirectional"
    hidden_size : int, optional
        What R says, too.
    input_forget : 0 or 1
    layout : 0 or 1
        Whether the batch comes first in X, the states and the outputs.

    Raises
    ------
    ValueError, TypeError
        An input or attribute has no meaning, or another shape or dtype than these.

    Notes
    -----
    W, R, B and P are parameters: `state_dict`, `load_state_dict` and optimisers take them by these
    names. float16 is computed in float32, in which parameters and their gradients are kept; X, the
    states, the outputs and their gradients are float16.

    Where a row has no step, Y_h and Y_c are the initial state. The operator's text is silent there;
    ONNX Runtime gives zeros.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> W, R = np.ones((1, 20, 3)), np.ones((1, 20, 5))
    >>> operator = fl.onnx.LSTM(W, R)
    >>> (Y, Y_h, Y_c), tape = operator.forward(np.ones((7, 2, 3)))
    >>> grads = operator.backward(tape, dY_h=np.ones_like(Y_h))
    >>> Y.shape, Y_h.shape, grads.params["W"].shape
    ((7, 1, 2, 5), (1, 2, 5), (1, 20, 3))
    """

    GATES = (0, 2, 3, 1)  # the layers have i, f, g, o
    ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")
    STATE = ("initial_h", "initial_c")
    OUTPUTS = ("Y", "Y_h", "Y_c")

    def __init__(
        self, W: Any, R: Any, B: Any = None, P: Any = None, *, input_forget: int = 0, **common: Any
    ):
        self.input_forget = read_switch("input_forget", input_forget)
        super().__init__(W, R, B, P, **common)

    def _layer(self, activations: Activations, parameters: Parameters, **options: Any) -> Direction:
        return LSTMDirection(
            activations=activations,
            peepholes="P" in parameters,
            coupled=self.input_forget,
            **options,
        )

    def __call__(
        self, X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
    ) -> tuple[np.ndarray, ...]:
        """The outputs Y, Y_h, Y_c of `lstm`."""
        return self._call(X, sequence_lens, initial_h, initial_c)

    def forward(
        self, X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
    ) -> tuple[tuple[np.ndarray, ...], OperatorTape]:
        """As a call, with the tape for `backward`: ``(Y, Y_h, Y_c), tape``."""
        return self._forward(X, sequence_lens, initial_h, initial_c)

    def backward(self, tape: Any, dY: Any = None, dY_h: Any = None, dY_c: Any = None) -> Gradients:
        """Gradients from those of the outputs, shaped as they are; None stands for zeros.

        Returns
        -------
        Gradients
            x of X, state of (initial_h, initial_c), and params of W, R, B and P.
        """
        return self._backward(tape, dY, dY_h, dY_c)


def lstm(
    X: Any,
    W: Any,
    R: Any,
    B: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    P: Any = None,
    **attributes: Any,
) -> tuple[np.ndarray, ...]:
    """ONNX's LSTM: its outputs Y, Y_h, Y_c.

    Weights are packed for the kernels in every call, which `LSTM` does once.

    Parameters
    ----------
    X : array (T, batch, input_size)
        (batch, T, input_size) with layout=1.
    W, R, B, P, **attributes
        As in `LSTM`, which says what is computed.
    sequence_lens : array (batch,) of ints, optional
        Steps of every row, zero allowed; all T where it is None.
    initial_h, initial_c : arrays (directions, batch, hidden_size), optional
        (batch, directions, hidden_size) with layout=1; zeros where they are None.

    Returns
    -------
    Y : array (T, directions, batch, hidden_size)
        (batch, T, directions, hidden_size) with layout=1. Zeros where a row has ended.
    Y_h, Y_c : arrays, shaped as initial_h
        After the last step of every row.
    """
    return LSTM(W, R, B, P, **attributes)(X, sequence_lens, initial_h, initial_c)
