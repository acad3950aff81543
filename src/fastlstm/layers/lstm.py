"""The long short-term memory layer."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastlstm.checks import real_number, whole_number
from fastlstm.layers.cell import RecurrentCell
from fastlstm.layers.initial import orthogonal
from fastlstm.layers.module import Parameters
from fastlstm.layers.recurrent import Recurrent


class LSTM(Recurrent):
    r"""Long short-term memory over sequences; `torch.nn.LSTM` in names, shapes and numbers.

    With σ the sigmoid and ∗ element by element, step t of every layer and direction computes

        i = σ(W_ii x + b_ii + W_hi h + b_hi)        input gate: what to save
        f = σ(W_if x + b_if + W_hf h + b_hf)        forget gate: what to remember
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)     candidate
        o = σ(W_io x + b_io + W_ho h + b_ho)        output gate: what to focus on
        c' = f ∗ c + i ∗ g                          cell state
        h' = o ∗ tanh(c')                           output
        h' = W_hr (o ∗ tanh(c'))                    output with `proj_size`

    (Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; projection: Sak,
    Senior & Beaufays 2014.)

    Parameters
    ----------
    input_size, hidden_size : int
        Features of the input, I, and of the cell state, H.
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
    proj_size : int
        When above 0, the size P < H that the output is projected to; otherwise P is H.
    init : "torch" or "keras"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases, forget bias 1.
    forget_bias : float, optional
        The forget gate's bias at the start, both biases together.
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        For initial values and dropout.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, … : read-only arrays
        (4H, I), (4H, P), (4H,), (4H,), (P, H), gates in the order i, f, g, o; "_l{k}" for layer k,
        with "_reverse" behind it for the second direction.

    Notes
    -----
    A row's result does not depend on the batch it is in, on padding, on the number of threads or on
    how a sequence is cut into calls: the bits are the same, within one backend. One model may be
    called from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> lstm = fl.LSTM(3, 5, rng=0)
    >>> y, (h, c) = lstm(np.ones((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    GATES = 4
    STATE = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        init: str = "torch",
        forget_bias: float | None = None,
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
        )
        self.proj_size = whole_number("proj_size", proj_size, minimum=0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size {hidden_size}, got {proj_size}"
            )
        if init not in ("torch", "keras"):
            raise ValueError(f"init: expected 'torch' or 'keras', got {init!r}")
        if forget_bias is not None:
            forget_bias = real_number("forget_bias", forget_bias, -np.inf, np.inf)
            if not self.bias:
                raise ValueError("forget_bias: needs bias=True, got bias=False")
        if forget_bias is None and init == "keras":
            forget_bias = 1.0
        self._replace_parameters(self._initial(init, forget_bias))

    @cached_property
    def _output_size(self) -> int:
        return self.proj_size or self.hidden_size

    @cached_property
    def _state_sizes(self) -> tuple[int, ...]:
        return self._output_size, self.hidden_size

    @cached_property
    def _splits_units(self) -> bool:
        return not self.proj_size

    def _shapes(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """(kind, suffix, shape) of every parameter, in torch's order."""
        H, P = self.hidden_size, self._output_size
        for features, suffix in self._inputs():
            yield "weight_ih", suffix, (4 * H, features)
            yield "weight_hh", suffix, (4 * H, P)
            if self.bias:
                yield "bias_ih", suffix, (4 * H,)
                yield "bias_hh", suffix, (4 * H,)
            if self.proj_size:
                yield "weight_hr", suffix, (P, H)

    def _initial(self, init: str, forget_bias: float | None) -> dict[str, np.ndarray]:
        H = self.hidden_size
        arrays = {}
        for kind, suffix, shape in self._shapes():
            if init == "torch":
                array = self._rng.uniform(-(H**-0.5), H**-0.5, shape)
            elif kind == "weight_hh":
                array = orthogonal(self._rng, shape)
            elif kind in ("weight_ih", "weight_hr"):
                limit = (6 / sum(shape)) ** 0.5
                array = self._rng.uniform(-limit, limit, shape)
            else:
                array = np.zeros(shape)
            if forget_bias is not None and kind in ("bias_ih", "bias_hh"):
                array[H : 2 * H] = forget_bias if kind == "bias_ih" else 0
            arrays[kind + suffix] = array.astype(self.dtype)
        return arrays

    def _keep(self, T: int, B: int, ragged: bool) -> dict[str, np.ndarray]:
        H, P = self.hidden_size, self._output_size
        # Gate gradients of steps past a row's end stay zero, for the bias's sum.
        kept = {"gates": (np.zeros if ragged else np.empty)((T, B, 4, H), self.dtype)}
        kept["cells"] = np.empty((T, B, H), self.dtype)
        if self.proj_size:
            kept["hidden"] = np.empty((T, B, H), self.dtype)
            kept["dprojected"] = np.empty((T, B, P), self.dtype)
        return kept

    def _forward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        packed = parameters.derive((k, "gates", suffix), lambda: self._pack(k, parameters, suffix))
        projection = self._pack_projection(k, parameters, suffix, transposed=False)

        def forward(
            x: Any, state: Any, y: Any, final: Any, walk: Any, kept: Any, *team: Any
        ) -> None:
            keep = kept.get("gates"), kept.get("cells"), kept.get("hidden")
            k.lstm_forward(x, packed, projection, *state, y, *final, *walk, *keep, *team)

        return forward

    def _backward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        weight = parameters["weight_hh" + suffix]
        recurrent = parameters.derive((k, "backward", suffix), lambda: k.pack(weight.T))
        projection = self._pack_projection(k, parameters, suffix, transposed=True)

        def backward(kept: Any, state: Any, dy: Any, dstate: Any, walk: Any, *team: Any) -> None:
            tape = kept["gates"], kept["cells"], state[1]
            weights = recurrent, projection
            k.lstm_backward(*tape, dy, *dstate, *weights, *walk, kept.get("dprojected"), *team)

        return backward

    def _call_kernel(
        self, k: Any, parameters: Parameters, axes: tuple[int, int]
    ) -> Callable[..., Any] | None:
        if self.num_layers > 1 or self.bidirectional:
            return None
        packed = parameters.derive((k, "gates", "_l0"), lambda: self._pack(k, parameters, "_l0"))
        projection = self._pack_projection(k, parameters, "_l0", transposed=False)
        sizes = self.input_size, self.hidden_size, self._output_size
        return partial(k.lstm_call, packed, projection, sizes, *axes)

    def _more_gradients(
        self, kept: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        if self.proj_size:
            yield "weight_hr", kept["dprojected"], kept["hidden"]

    def _pack(self, k: Any, parameters: Parameters, suffix: str) -> Any:
        W, R = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        if not self.bias:
            return k.pack_gates(W, R, np.zeros(len(W), self.dtype))
        return k.pack_gates(W, R, parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix])

    def _pack_projection(
        self, k: Any, parameters: Parameters, suffix: str, *, transposed: bool
    ) -> Any:
        if not self.proj_size:
            return None
        weight = parameters["weight_hr" + suffix]
        return parameters.derive(
            (k, "projection", suffix, transposed),
            lambda: k.pack(weight.T if transposed else weight),
        )

    def __repr__(self) -> str:
        return (
            f"LSTM({self._describe()}{f', proj_size={self.proj_size}' if self.proj_size else ''})"
        )


class LSTMCell(RecurrentCell):
    """One step of an LSTM; `torch.nn.LSTMCell` in names, shapes and numbers.

    ``h, c = cell(x, (h, c))`` with x (B, I) and state parts (B, H), or (I,) and (H,); the state is
    zero where it is None. Equations and arguments as in `LSTM`.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (4H, I), (4H, H), (4H,), (4H,), gates in the order i, f, g, o.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        init: str = "torch",
        forget_bias: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        options = {"init": init, "forget_bias": forget_bias, "dtype": dtype, "rng": rng}
        super().__init__(LSTM(input_size, hidden_size, bias=bias, **options))
