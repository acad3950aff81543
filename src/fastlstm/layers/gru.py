"""The gated recurrent unit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastlstm.checks import flag
from fastlstm.layers import short
from fastlstm.layers.activations import read_activations, read_clip
from fastlstm.layers.cell import RecurrentCell
from fastlstm.layers.gradients import RecurrentSum
from fastlstm.layers.module import Parameters
from fastlstm.layers.recurrent import Recurrent
from fastlstm.layers.shares import Sharing


class GRU(Recurrent):
    r"""Gated recurrent unit over sequences; `torch.nn.GRU` in names, shapes and numbers.

    With σ the sigmoid and ∗ element by element, step t of every layer and direction computes

        r = σ(W_ir x + b_ir + W_hr h + b_hr)            reset gate: how much of h is seen
        z = σ(W_iz x + b_iz + W_hz h + b_hz)            update gate: how much of h is kept
        n = tanh(W_in x + b_in + r ∗ (W_hn h + b_hn))   candidate
        n = tanh(W_in x + b_in + W_hn (r ∗ h) + b_hn)   with `linear_before_reset=False`
        h' = (1 - z) ∗ n + z ∗ h                        state and output

    (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8, is
    the second form of n; the first is that of torch, of Keras' `reset_after` and of cuDNN.)

    ``y, h = gru(x, h)``: the state is one array (num_layers * directions, B, H).

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int or list of int
        Features of the state, H; a list gives every layer of the stack its own. Where they differ,
        the state is a list of arrays (directions, B, H_k), one for each layer.
    num_layers : int
        Layers of the stack; each takes the output of the one below.
    bias : bool
        Whether the gates have biases.
    batch_first : bool
        Whether x and the output are (B, T, features) instead of (T, B, features).
    dropout : float in [0, 1]
        In training, the share of values zeroed between layers (never after the last one).
    bidirectional : bool
        Whether a second network reads backwards; the output holds both, forward first.
    linear_before_reset : bool
        Whether the reset gate acts on the product (torch) or on h before it (Cho et al.).
    activations : (gate, candidate)
        What stands for σ and tanh: each the name of an activation, or (name, alpha) or (name,
        alpha, beta), as ONNX defines them; see `fastlstm.layers.activations`.
    clip : float, optional
        What goes into an activation is clipped to ±clip.
    init : "torch" or "keras"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases.
    learn_initial_state : bool
        Whether the state that a call without one begins with is learned.
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        For initial values and dropout.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, … : read-only arrays
        (3H, I), (3H, H), (3H,), (3H,), gates in the order r, z, n, and with `learn_initial_state`
        initial_h_l0 (H,); "_l{k}" for layer k, with "_reverse" behind it for the second direction.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> gru = fl.GRU(3, 5, rng=0)
    >>> y, h = gru(np.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    GATES = 3
    STATE = ("h",)
    _DEFAULT = read_activations("activations", ("sigmoid", "tanh"), 2)

    def __init__(
        self,
        input_size: int,
        hidden_size: Any,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        linear_before_reset: bool = True,
        activations: Any = ("sigmoid", "tanh"),
        clip: float | None = None,
        init: str = "torch",
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
        if init not in ("torch", "keras"):
            raise ValueError(f"init: expected 'torch' or 'keras', got {init!r}")
        self.linear_before_reset = flag("linear_before_reset", linear_before_reset)
        self.activations = read_activations("activations", activations, 2)
        self.clip = read_clip("clip", clip)
        self._is_torchs = (
            self.linear_before_reset and self.activations == self._DEFAULT and self.clip is None
        )
        self._begin(init)

    def _keep(self, layer: int, T: int, B: int) -> dict[str, np.ndarray]:
        H = self._widths[layer]
        tape = np.empty((T, B, 4, H), self.dtype)
        kept = {"tape": tape, "gates": tape[:, :, :3], "seen": tape[:, :, 3]}
        if not self._is_torchs:
            kept["slopes"] = np.empty((T, B, 3, H), self.dtype)
        return kept

    def _forward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        if self._is_torchs:
            return self._torchs_kernel(k, parameters, suffix)
        weights = parameters.derive(
            (k, "forward", suffix), lambda: self._pack(k, parameters, suffix)
        )
        activations = np.array(self.activations, self.dtype)
        clip = np.inf if self.clip is None else self.clip
        options = self.linear_before_reset, activations, clip

        def forward(x: Any, state: Any, y: Any, final: Any, walk: Any, kept: Any) -> None:
            keep = kept.get("tape"), kept.get("slopes")
            kept["y"] = y  # which is h before the next step
            k.gru_general_forward(x, *weights, *state, y, *final, *options, *walk, *keep)

        return forward

    def _torchs_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        packed = parameters.derive(
            (k, "gates", suffix), lambda: k.pack_gru(*self._weights(parameters, suffix))
        )

        def forward(x: Any, state: Any, y: Any, final: Any, walk: Any, kept: Any) -> None:
            kept["y"] = y
            k.gru_forward(x, packed, *state, y, *final, *walk, kept.get("tape"))

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
        H = R.shape[1]
        weights = parameters.derive(
            (k, "backward", suffix), lambda: (k.pack(R[: 2 * H].T), k.pack(R[2 * H :].T))
        )
        options = *weights, self.linear_before_reset

        def backward(kept: Any, state: Any, dy: Any, dstate: Any, walk: Any) -> None:
            k.gru_backward(
                kept["tape"], kept["y"], *state, dy, *dstate, *options, *walk, kept.get("slopes")
            )

        return backward

    def _recurrent_sums(self, kept: dict[str, np.ndarray]) -> Iterator[RecurrentSum]:
        H = kept["seen"].shape[2]
        yield RecurrentSum(slice(0, 2 * H))
        candidate = slice(2 * H, 3 * H)
        if self.linear_before_reset:
            yield RecurrentSum(candidate, dz=kept["seen"])
        else:
            yield RecurrentSum(candidate, met=kept["seen"])

    def _pack(self, k: Any, parameters: Parameters, suffix: str) -> tuple[Any, ...]:
        """As `gru_general_forward` takes them."""
        W, R, *biases = self._weights(parameters, suffix)
        H = R.shape[1]
        bias_ih, bias_hh = (bias.reshape(3, H) for bias in biases)
        bias = np.concatenate([bias_ih[:2] + bias_hh[:2], bias_ih[2:], bias_hh[2:]])
        return k.pack(W), k.pack(R[: 2 * H]), k.pack(R[2 * H :]), bias

    def _weights(self, parameters: Parameters, suffix: str) -> tuple[np.ndarray, ...]:
        """W_ih, W_hh and both biases, zeros where there are none."""
        zeros = np.zeros(len(parameters["weight_hh" + suffix]), self.dtype)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(parameters.get(name + suffix, zeros) for name in names)

    def __repr__(self) -> str:
        text = self._describe()
        if not self.linear_before_reset:
            text += ", linear_before_reset=False"
        if self.activations != self._DEFAULT:
            text += f", activations={self.activations}"
        if self.clip is not None:
            text += f", clip={self.clip}"
        return f"GRU({text})"


class GRUCell(RecurrentCell):
    """One step of a GRU; `torch.nn.GRUCell` in names, shapes and numbers.

    ``h = cell(x, h)`` with x (B, I) and h (B, H), or (I,) and (H,); h is zero where it is None.
    Equations and arguments as in `GRU`.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (3H, I), (3H, H), (3H,), (3H,), gates in the order r, z, n.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        linear_before_reset: bool = True,
        activations: Any = ("sigmoid", "tanh"),
        clip: float | None = None,
        init: str = "torch",
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        super().__init__(
            GRU(
                input_size,
                hidden_size,
                bias=bias,
                linear_before_reset=linear_before_reset,
                activations=activations,
                clip=clip,
                init=init,
                dtype=dtype,
                rng=rng,
            )
        )
