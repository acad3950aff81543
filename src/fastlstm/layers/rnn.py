"""The plain recurrent layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.checks import read_dtype, read_size
from fastlstm.engine.initial import read_init
from fastlstm.engine.one_step import OneStep
from fastlstm.kernels.arguments import Kernels, Packed, RNNOptions, RNNWeights
from fastlstm.layers.activations import as_written, read_activation, read_clip
from fastlstm.layers.recurrent import HiddenCell, Recurrent, describe_shared, read_bias


class Cell(HiddenCell):
    """The `fastlstm.engine.cell.Cell` of an RNN."""

    GATES = 1

    def pack(
        self, kernels: Kernels, parameters: Mapping[str, np.ndarray], backward: bool
    ) -> Packed:
        return kernels.pack_rnn(RNNWeights(*parameters.values()), self.options, backward)


class _Options:
    """The common options of `RNN` and `RNNCell`, as attributes."""

    def _read_options(
        self, *, bias: Any, nonlinearity: Any, clip: Any, init: Any
    ) -> dict[str, Any]:
        """Set the attributes, and return the keyword arguments of `Cell`."""
        self.bias = read_bias(bias)
        activation = read_activation("nonlinearity", nonlinearity)
        self.nonlinearity = as_written(activation)
        self.clip, self.init = read_clip("clip", clip), read_init(init)
        options = RNNOptions(activation, np.inf if self.clip is None else self.clip)
        return {"bias": self.bias, "options": options, "init": self.init}


@describe_shared
class RNN(_Options, Recurrent):
    r"""Plain recurrent network over sequences; `torch.nn.RNN` in names, shapes and numbers.

    Step t of every layer and direction computes

        h' = f(W_ih x + b_ih + W_hh h + b_hh)       state and output

    (Elman 1990, "Finding structure in time".) In every step h goes through W_hh and f, so gradients
    over many steps vanish or explode: see `LSTM`.

    ``y, h = rnn(x, h)``: the state is one array (num_layers * directions, B, H).

    Parameters
    ----------
    input_size : ...
    hidden_size : ...
    num_layers : ...
    nonlinearity : "tanh", "relu" or another activation
        f: the name of an activation, or (name, alpha) or (name, alpha, beta), as ONNX defines
        them; see `fastlstm.layers.activations`.
    bias : ...
    batch_first : ...
    dropout : ...
    bidirectional : ...
    clip : float, optional
        Bound of the argument of f: it is limited to ±clip.
    init : "torch" or "keras"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases.
    learn_initial_state : ...
    dtype : ...
    rng : ...

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : read-only arrays
        (H, I), (H, H), (H,), (H,), and with `learn_initial_state` initial_h_l0 (H,); "_l{k}" for
        layer k, followed by "_reverse" for the second direction. All options are attributes, too.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> rnn = fl.RNN(3, 5, nonlinearity="relu", rng=0)
    >>> y, h = rnn(np.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int = 1,
        nonlinearity: Any = "tanh",
        bias: Any = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        clip: float | None = None,
        init: str = "torch",
        learn_initial_state: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        options = self._read_options(bias=bias, nonlinearity=nonlinearity, clip=clip, init=init)
        super().__init__(
            lambda inputs, H: Cell(inputs, H, **options),
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            learn_initial_state=learn_initial_state,
            dtype=dtype,
            rng=rng,
        )


class RNNCell(_Options, OneStep):
    """One step of an RNN; `torch.nn.RNNCell` in names, shapes and numbers.

    ``h = cell(x, h)`` takes x (B, I) and h (B, H), or (I,) and (H,); None stands for a zero h.
    The equation is that of `RNN`, as are the arguments, but for those of several layers.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (H, I), (H, H), (H,), (H,).

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> cell, h = fl.RNNCell(3, 5, rng=0), None
    >>> for x in np.ones((7, 2, 3)):  # 7 steps of 2 rows
    ...     h = cell(x, h)
    >>> h.shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: Any = True,
        nonlinearity: Any = "tanh",
        *,
        clip: float | None = None,
        init: str = "torch",
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.input_size = read_size("input_size", input_size)
        self.hidden_size = read_size("hidden_size", hidden_size)
        options = self._read_options(bias=bias, nonlinearity=nonlinearity, clip=clip, init=init)
        cell = Cell(self.input_size, self.hidden_size, **options)
        super().__init__(cell, dtype=read_dtype("dtype", dtype), rng=rng)
