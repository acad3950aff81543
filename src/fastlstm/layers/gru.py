"""The gated recurrent unit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.checks import read_dtype, read_flag, read_size
from fastlstm.engine.initial import read_init
from fastlstm.engine.one_step import OneStep
from fastlstm.kernels.arguments import GRUOptions, GRUWeights, Kernels, Packed
from fastlstm.layers.activations import as_written, read_activations, read_clip
from fastlstm.layers.recurrent import HiddenCell, Recurrent, describe_shared, read_bias

ACTIVATIONS = ("sigmoid", "tanh")


class Cell(HiddenCell):
    """The `fastlstm.engine.cell.Cell` of a GRU."""

    GATES = 3

    def pack(
        self, kernels: Kernels, parameters: Mapping[str, np.ndarray], backward: bool
    ) -> Packed:
        return kernels.pack_gru(GRUWeights(*parameters.values()), self.options, backward)


class _Options:
    """The common options of `GRU` and `GRUCell`, as attributes."""

    def _read_options(
        self, *, bias: Any, linear_before_reset: Any, activations: Any, clip: Any, init: Any
    ) -> dict[str, Any]:
        """Set the attributes, and return the keyword arguments of `Cell`."""
        self.bias = read_bias(bias)
        self.linear_before_reset = read_flag("linear_before_reset", linear_before_reset)
        gate, candidate = read_activations("activations", activations, 2)
        self.activations = as_written(gate), as_written(candidate)
        self.clip, self.init = read_clip("clip", clip), read_init(init)
        bound = np.inf if self.clip is None else self.clip
        options = GRUOptions(gate, candidate, bound, self.linear_before_reset)
        return {"bias": self.bias, "options": options, "init": self.init}


@describe_shared
class GRU(_Options, Recurrent):
    r"""Gated recurrent unit over sequences; `torch.nn.GRU` in names, shapes and numbers.

    With σ the sigmoid and ∗ element by element, step t of every layer and direction computes

        r = σ(W_ir x + b_ir + W_hr h + b_hr)            reset gate: how much of h enters n
        z = σ(W_iz x + b_iz + W_hz h + b_hz)            update gate: how much of h is kept
        n = tanh(W_in x + b_in + r ∗ (W_hn h + b_hn))   candidate
        n = tanh(W_in x + b_in + W_hn (r ∗ h) + b_hn)   with `linear_before_reset=False`
        h' = (1 - z) ∗ n + z ∗ h                        state and output

    The second form of n is from Cho et al. 2014, "Learning phrase representations using RNN
    encoder-decoder", eq. 5 to 8. The first is that of torch, of Keras' `reset_after` and of cuDNN.

    ``y, h = gru(x, h)``: the state is one array (num_layers * directions, B, H).

    Parameters
    ----------
    input_size : ...
    hidden_size : ...
    num_layers : ...
    bias : ...
    batch_first : ...
    dropout : ...
    bidirectional : ...
    linear_before_reset : bool
        Whether the reset gate acts on the product (torch) or on h before it (Cho et al.).
    activations : (gate, candidate)
        The functions in place of σ and tanh: each the name of an activation, or (name, alpha) or
        (name, alpha, beta), as ONNX defines them; see `fastlstm.layers.activations`.
    clip : ...
    init : "torch" or "keras"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases.
    learn_initial_state : ...
    dtype : ...
    rng : ...

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : read-only arrays
        (3H, I), (3H, H), (3H,), (3H,), gates in the order r, z, n, and with `learn_initial_state`
        initial_h_l0 (H,); "_l{k}" for layer k, followed by "_reverse" for the second direction.
        All options are attributes, too.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> gru = fl.GRU(3, 5, rng=0)
    >>> y, h = gru(np.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int = 1,
        bias: Any = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        linear_before_reset: bool = True,
        activations: Any = ACTIVATIONS,
        clip: float | None = None,
        init: str = "torch",
        learn_initial_state: bool = False,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        options = self._read_options(
            bias=bias,
            linear_before_reset=linear_before_reset,
            activations=activations,
            clip=clip,
            init=init,
        )
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


class GRUCell(_Options, OneStep):
    """One step of a GRU; `torch.nn.GRUCell` in names, shapes and numbers.

    ``h = cell(x, h)`` takes x (B, I) and h (B, H), or (I,) and (H,); None stands for a zero h.
    Equations are those of `GRU`, as are the arguments, but for those of several layers.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (3H, I), (3H, H), (3H,), (3H,), gates in the order r, z, n.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> cell, h = fl.GRUCell(3, 5, rng=0), None
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
        *,
        linear_before_reset: bool = True,
        activations: Any = ACTIVATIONS,
        clip: float | None = None,
        init: str = "torch",
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.input_size = read_size("input_size", input_size)
        self.hidden_size = read_size("hidden_size", hidden_size)
        options = self._read_options(
            bias=bias,
            linear_before_reset=linear_before_reset,
            activations=activations,
            clip=clip,
            init=init,
        )
        cell = Cell(self.input_size, self.hidden_size, **options)
        super().__init__(cell, dtype=read_dtype("dtype", dtype), rng=rng)
