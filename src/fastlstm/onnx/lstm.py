"""ONNX's LSTM."""

from collections.abc import Container
from typing import Any

import numpy as np

from fastlstm.layers.activations import read_activations
from fastlstm.layers.lstm_options import Cell, Variant
from fastlstm.module import Gradients
from fastlstm.onnx.attributes import Activations, read_switch
from fastlstm.onnx.operator import Operator, OperatorTape, takes_attributes_of


@takes_attributes_of(Operator)
class LSTM(Operator):
    r"""ONNX's LSTM as an object with weights: computes what `lstm` does, and can be trained.

    With f, g, h the activations and ∗ element by element, step t of every direction computes

        i = f(W_i x + R_i H + P_i ∗ C + Wb_i + Rb_i)
        f = f(W_f x + R_f H + P_f ∗ C + Wb_f + Rb_f), or 1 - i with input_forget
        c = g(W_c x + R_c H + Wb_c + Rb_c)
        C' = f ∗ C + i ∗ c
        o = f(W_o x + R_o H + P_o ∗ C' + Wb_o + Rb_o)
        H' = o ∗ h(C')

    (the operator's text in opset 22). The order of gates is i, o, f, c.

    Parameters
    ----------
    W : array (directions, 4 · hidden_size, input_size)
        float16, float32 or float64. All other inputs have the same dtype. (Opset 22 also allows
        bfloat16, which NumPy does not have.)
    R : array (directions, 4 · hidden_size, hidden_size)
    B : array (directions, 8 · hidden_size), optional
        The biases Wb, then Rb.
    P : array (directions, 3 · hidden_size), optional
        Peepholes of i, o, f.
    activation_alpha, activation_beta : lists of numbers, optional
        Values for the activations that take one, in their order. If there are fewer values, the
        others are those of ONNX's operator of that name (Affine 1 and 0, LeakyRelu 0.01,
        ThresholdedRelu 1, ScaledTanh 1 and 1, HardSigmoid 0.2 and 0.5, Elu 1).
    activations : list of str, optional
        f, g, h, for each direction: Sigmoid, Tanh, Relu, Affine, LeakyRelu, ThresholdedRelu,
        ScaledTanh, HardSigmoid, Elu, Softsign or Softplus, in any case.
    clip : float, optional
        Bound of the arguments of f and g, which are limited to ±clip. The argument of h is not
        limited, as in ONNX Runtime; the operator's text is not clear about it.
    direction : "forward", "reverse" or "bidirectional"
    hidden_size : int, optional
        The last axis of R.
    input_forget : 0 or 1
    layout : 0 or 1
        Whether the batch comes first in X, the states and the outputs.

    Raises
    ------
    ValueError, TypeError
        An input has another shape or dtype, or an attribute has a value that is not described here.

    Notes
    -----
    W, R, B and P are the names of the parameters in `state_dict`, `load_state_dict` and optimizers.
    With float16, the computation, the parameters and their gradients are float32; X, the states,
    the outputs and their gradients are float16.

    If a row has no step, its Y_h and Y_c are its initial state. The operator's text does not
    define them; ONNX Runtime returns zeros.

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

    gate_order = (0, 2, 3, 1)  # the layers' order is i, f, g, o
    ACTIVATIONS = ("Sigmoid", "Tanh", "Tanh")
    STATE = ("initial_h", "initial_c")
    OUTPUTS = ("Y", "Y_h", "Y_c")

    def __init__(
        self, W: Any, R: Any, B: Any = None, P: Any = None, *, input_forget: int = 0, **common: Any
    ):
        self.input_forget = read_switch("input_forget", input_forget)
        super().__init__(W, R, B, P, **common)

    def _cell(self, activations: Activations, parameters: Container[str]) -> Cell:
        variant = Variant(
            peepholes="P" in parameters,
            coupled=self.input_forget,
            activations=read_activations("activations", activations, 3),
            clip=self.clip,
        )
        H = self.hidden_size
        return Cell(self.input_size, H, H, "B" in parameters, self._computed_in, variant)

    def __call__(
        self, X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
    ) -> tuple[np.ndarray, ...]:
        """Return the outputs Y, Y_h, Y_c of `lstm`, which describes the arguments."""
        return self._call(X, sequence_lens, initial_h, initial_c)

    def forward(
        self, X: Any, sequence_lens: Any = None, initial_h: Any = None, initial_c: Any = None
    ) -> tuple[tuple[np.ndarray, ...], OperatorTape]:
        """Compute as a call does; returns ``(Y, Y_h, Y_c), tape``, the tape for one backward."""
        return self._forward(X, sequence_lens, initial_h, initial_c)

    def backward(self, tape: Any, dY: Any = None, dY_h: Any = None, dY_c: Any = None) -> Gradients:
        """Return the gradients of all inputs and parameters.

        Parameters
        ----------
        tape : OperatorTape
            From `forward`.
        dY, dY_h, dY_c : arrays, optional
            Gradients of the outputs, in their shapes; None for zeros.

        Returns
        -------
        Gradients
            `x` is that of X, `state` those of (initial_h, initial_c), `params` those of W, R, B, P.
        """
        return self._backward(tape, dY, dY_h, dY_c)


@takes_attributes_of(LSTM)
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
    """Compute ONNX's LSTM, and return its outputs Y, Y_h, Y_c.

    Every call packs the weights for the kernels; an object of `LSTM` packs them once.

    Parameters
    ----------
    X : array (T, batch, input_size)
        (batch, T, input_size) with layout=1.
    W, R, B, P, **attributes
        As in `LSTM`, which describes the computation.
    sequence_lens : array (batch,) of ints, optional
        0 to T: the number of steps of every row; T if None.
    initial_h, initial_c : arrays (directions, batch, hidden_size), optional
        (batch, directions, hidden_size) with layout=1; zeros if None.

    Returns
    -------
    Y : array (T, directions, batch, hidden_size)
        (batch, T, directions, hidden_size) with layout=1. Zeros where a row has ended.
    Y_h, Y_c : arrays of initial_h's shape
        The state after the last step of every row.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> X, W, R = np.ones((5, 2, 3)), np.ones((1, 16, 3)), np.ones((1, 16, 4))
    >>> [output.shape for output in fl.onnx.lstm(X, W, R, hidden_size=4)]
    [(5, 1, 2, 4), (1, 2, 4), (1, 2, 4)]
    """
    return LSTM(W, R, B, P, **attributes)(X, sequence_lens, initial_h, initial_c)
