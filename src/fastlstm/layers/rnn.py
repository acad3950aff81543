"""The plain recurrent layer."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm.layers import short
from fastlstm.layers.activations import read_activation, read_clip
from fastlstm.layers.cell import RecurrentCell
from fastlstm.layers.module import Parameters
from fastlstm.layers.recurrent import Recurrent
from fastlstm.layers.shares import Sharing


class RNN(Recurrent):
    r"""Plain recurrent network over sequences; `torch.nn.RNN` in names, shapes and numbers.

    Step t of every layer and direction computes

        h' = f(W_ih x + b_ih + W_hh h + b_hh)       state and output

    (Elman 1990, "Finding structure in time".) Nothing carries h past f and W_hh unchanged, so
    gradients over many steps vanish or explode: see `LSTM`.

    ``y, h = rnn(x, h)``: the state is one array (num_layers * directions, B, H).

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int or list of int
        Features of the state, H; a list gives every layer of the stack its own. Where they differ,
        the state is a list of arrays (directions, B, H_k), one for each layer.
    num_layers : int
        Layers of the stack; each takes the output of the one below.
    nonlinearity : "tanh", "relu" or another activation
        f: the name of an activation, or (name, alpha) or (name, alpha, beta), as ONNX defines
        them; see `fastlstm.layers.activations`.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features).
    dropout : float in [0, 1]
        In training, the share of values zeroed between layers (never after the last one).
    bidirectional : bool
        Whether a second network reads backwards; the output holds both, forward first.
    clip : float, optional
        What goes into f is clipped to ±clip.
    learn_initial_state : bool
        Whether the state that a call without one begins with is learned.
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        For initial values, which are U(-1/√H, 1/√H), and dropout.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : read-only arrays
        (H, I), (H, H), (H,), (H,), and with `learn_initial_state` initial_h_l0 (H,); "_l{k}" for
        layer k, with "_reverse" behind it for the second direction.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> rnn = fl.RNN(3, 5, nonlinearity="relu", rng=0)
    >>> y, h = rnn(np.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    GATES = 1
    STATE = ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        clip: float | None = None,
        learn_initial_state: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            dtype,
            rng,
            learn_initial_state,
        )
        self.nonlinearity = read_activation("nonlinearity", nonlinearity)
        self.clip = read_clip("clip", clip)
        self._begin()

    def _keep(self, layer: int, T: int, B: int) -> dict[str, np.ndarray]:
        return {"gates": np.empty((T, B, 1, self._widths[layer]), self.dtype)}

    def _forward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        weights = parameters.derive(
            (k, "forward", suffix), lambda: self._pack(k, parameters, suffix)
        )
        activation = np.array(self.nonlinearity, self.dtype)
        options = activation, np.inf if self.clip is None else self.clip

        def forward(x: Any, state: Any, y: Any, final: Any, walk: Any, kept: Any) -> None:
            k.rnn_forward(x, *weights, *state, y, *final, *options, *walk, kept.get("gates"))

        return forward

    def _call_kernel(
        self, k: Any, parameters: Parameters, axes: tuple[int, int], sharing: Sharing
    ) -> Callable[..., Any] | None:
        if self.num_layers > 1 or self.bidirectional or axes[0] == 1:
            return None
        kernel = self._forward_kernel(k, parameters, "_l0")
        sizes = self.input_size, self._widths[0]
        return short.around(kernel, *sizes, self.dtype, axes[0] < 0, sharing[0])

    def _backward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        R = parameters["weight_hh" + suffix]
        recurrent = parameters.derive((k, "backward", suffix), lambda: k.pack(R.T))

        def backward(kept: Any, state: Any, dy: Any, dstate: Any, walk: Any) -> None:
            k.rnn_backward(kept["gates"], dy, *dstate, recurrent, *walk)

        return backward

    def _pack(self, k: Any, parameters: Parameters, suffix: str) -> tuple[Any, ...]:
        bias = np.zeros(len(parameters["weight_hh" + suffix]), self.dtype)
        if self.bias:
            bias += parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix]
        weights = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        return *map(k.pack, weights), bias

    def __repr__(self) -> str:
        text = self._describe()
        if self.nonlinearity.name != "tanh":
            text += f", nonlinearity={self.nonlinearity}"
        if self.clip is not None:
            text += f", clip={self.clip}"
        return f"RNN({text})"


class RNNCell(RecurrentCell):
    """One step of an RNN; `torch.nn.RNNCell` in names, shapes and numbers.

    ``h = cell(x, h)`` with x (B, I) and h (B, H), or (I,) and (H,); h is zero where it is None.
    Equation and arguments as in `RNN`.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (H, I), (H, H), (H,), (H,).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Any = "tanh",
        *,
        clip: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        options = {"clip": clip, "dtype": dtype, "rng": rng}
        super().__init__(RNN(input_size, hidden_size, 1, nonlinearity, bias, **options))
