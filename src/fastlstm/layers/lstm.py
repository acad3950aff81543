"""The long short-term memory layer."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np

from fastlstm.checks import whole_number
from fastlstm.layers.cell import RecurrentCell
from fastlstm.layers.gradients import RecurrentSum, joined, pack_transposed
from fastlstm.layers.initial import read_init
from fastlstm.layers.lstm_options import ACTIVATIONS, BACKWARD, FORWARD, read_variant
from fastlstm.layers.module import Parameters
from fastlstm.layers.recurrent import Recurrent
from fastlstm.layers.shares import Sharing


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
    input_size : int
        Features of the input, I.
    hidden_size : int or list of int
        Features of the cell state, H; a list gives every layer of the stack its own. Where they
        differ, the parts of a state are lists of arrays (directions, B, H_k), one for each layer.
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
    peepholes : bool
        Whether gates see the cell (Gers, Schraudolph & Schmidhuber 2002): p_i ∗ c and p_f ∗ c are
        added to what i and f are the σ of, p_o ∗ c' to what o is.
    coupled : bool
        Whether f = 1 - i (Greff et al. 2017). Parameters keep their shapes; the rows of the forget
        gate have no effect and zero gradient.
    layer_norm : bool
        Whether W x, R h and what the output shows of the cell are normalised (Ba, Kiros & Hinton
        2016, eq. 20 to 22), W x and R h gate by gate: LN(W x) ∗ weight_ln_ih + LN(R h) ∗
        weight_ln_hh + biases, and h' = o ∗ tanh(LN(c') ∗ weight_ln_c + bias_ln_c), with ε = 1e-5.
    activations : tuple of three
        Of the gates, the candidate and the output: names of ONNX's list, in lower case with
        underscores ("hard_sigmoid"), or (name, alpha) or (name, alpha, beta).
    clip : float, optional
        Gates' preactivations, peepholes included, are cut to ±clip, as ONNX has it.
    recurrent_dropout : float in [0, 1]
        In training, the share of h zeroed on its way into R: one mask for all steps of a sequence
        (Gal & Ghahramani 2016).
    zoneout : tuple of two floats in [0, 1]
        In training, the shares of h and c that stay as they were in each step; in inference the
        expectation of that (Krueger et al. 2017, where o shows the cell as it would have been
        without). With `proj_size`, h is the projected one.
    init : "torch", "keras" or "chrono"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases, forget bias 1.
        "chrono": as "torch", with forget bias log(U(1, t_max - 1)) and its negative as the input
        gate's (Tallec & Ollivier 2018, eq. 16). Gains of layer norm begin as 1, learned states
        as 0.
    forget_bias : float, optional
        The forget gate's bias at the start, both biases together.
    t_max : float, optional
        How many steps apart the longest dependencies are, for "chrono".
    learn_initial_state : bool
        Whether the state that a call without one begins with is a parameter. After a reset, the
        state is zero all the same.
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        For initial values, dropout and zoneout.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, … : read-only arrays
        (4H, I), (4H, P), (4H,), (4H,), (P, H), gates in the order i, f, g, o; "_l{k}" for layer k,
        with "_reverse" behind it for the second direction.
    weight_peephole_l0, … : read-only arrays
        (3H,): of i, f, o.
    weight_ln_ih_l0, weight_ln_hh_l0, weight_ln_c_l0, bias_ln_c_l0, … : read-only arrays
        (4H,), (4H,), (H,), (H,), the last with bias=True.
    initial_h_l0, initial_c_l0, … : read-only arrays
        (P,), (H,).

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
        hidden_size: Any,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        peepholes: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        activations: Any = ACTIVATIONS,
        clip: float | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: tuple[float, float] = (0.0, 0.0),
        init: str = "torch",
        forget_bias: float | None = None,
        t_max: float | None = None,
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
        self.proj_size = whole_number("proj_size", proj_size, minimum=0)
        if self.proj_size >= min(self._widths):
            raise ValueError(
                f"proj_size: expected less than hidden_size {hidden_size}, got {proj_size}"
            )
        self._variant = read_variant(
            peepholes, coupled, layer_norm, activations, clip, recurrent_dropout, zoneout
        )
        init, *biases = read_init(init, forget_bias, t_max, self.bias, self._variant.coupled)
        self._begin(init, *biases)

    def _sizes(self, layer: int) -> tuple[int, ...]:
        return self.proj_size or self._widths[layer], self._widths[layer]

    @cached_property
    def _splits_units(self) -> bool:
        return not self.proj_size and self._variant.trains_plainly

    def _shapes(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """(kind, suffix, shape) of every parameter, in torch's order."""
        for place, (features, suffix) in enumerate(self._inputs()):
            P, H = self._sizes(place // self._directions)
            yield "weight_ih", suffix, (4 * H, features)
            yield "weight_hh", suffix, (4 * H, P)
            if self.bias:
                yield "bias_ih", suffix, (4 * H,)
                yield "bias_hh", suffix, (4 * H,)
            if self.proj_size:
                yield "weight_hr", suffix, (P, H)
            for kind, shape in self._variant.shapes(H, self.bias):
                yield kind, suffix, shape
            if self.learn_initial_state:
                yield "initial_h", suffix, (P,)
                yield "initial_c", suffix, (H,)

    def _keep(self, layer: int, T: int, B: int) -> dict[str, np.ndarray]:
        P, H = self._sizes(layer)
        kept = {"gates": np.empty((T, B, 4, H), self.dtype)}
        kept["cells"] = np.empty((T, B, H), self.dtype)
        if self.proj_size:
            kept["hidden"] = np.empty((T, B, H), self.dtype)
            kept["dprojected"] = np.empty((T, B, P), self.dtype)
        return kept | self._variant.keep(self._rng, T, B, P, H, self.dtype)

    def _forward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        packed = parameters.derive((k, "gates", suffix), lambda: self._pack(k, parameters, suffix))
        projection = self._pack_projection(k, parameters, suffix, transposed=False)
        variant = self._variant

        def forward(
            x: Any, state: Any, y: Any, final: Any, walk: Any, kept: Any, threads: int = 1
        ) -> None:
            common = x, packed, projection, *state, y, *final
            keep = kept.get("gates"), kept.get("cells"), kept.get("hidden")
            if variant.trains_plainly or (variant.is_plain and not kept):
                k.lstm_forward(*common, *walk, *keep, threads)
                return
            cell = self._cell(parameters, suffix).values()
            more = (kept.get(name) for name in FORWARD)
            k.lstm_general_forward(*common, *cell, *variant.zoneout, *walk, *keep, *more)

        return forward

    def _backward_kernel(self, k: Any, parameters: Parameters, suffix: str) -> Callable[..., None]:
        recurrent = pack_transposed(k, parameters, "weight_hh" + suffix)
        projection = self._pack_projection(k, parameters, suffix, transposed=True)

        def backward(
            kept: Any, state: Any, dy: Any, dstate: Any, walk: Any, threads: int = 1
        ) -> None:
            common = kept["gates"], kept["cells"], state[1], dy, *dstate, recurrent, projection
            dprojected = kept.get("dprojected")
            if self._variant.trains_plainly:
                k.lstm_backward(*common, *walk, dprojected, threads)
                return
            cell = self._cell(parameters, suffix).values()
            more = (kept.get(name) for name in BACKWARD)
            k.lstm_general_backward(*common, *cell, *walk, dprojected, *more)

        return backward

    def _cell(self, parameters: Parameters, suffix: str) -> dict[str, Any]:
        H = len(parameters["weight_ih" + suffix]) // 4
        variant: dict[str, Any] = parameters.derive(
            ("cell", suffix), lambda: self._variant.cell(parameters, suffix, H, self.dtype)
        )
        return variant

    def _call_kernel(
        self, k: Any, parameters: Parameters, axes: tuple[int, int], sharing: Sharing
    ) -> Callable[..., Any] | None:
        has_others = self.num_layers > 1 or self.bidirectional
        if has_others or self.learn_initial_state or not self._variant.is_plain:
            return None
        packed = parameters.derive((k, "gates", "_l0"), lambda: self._pack(k, parameters, "_l0"))
        projection = self._pack_projection(k, parameters, "_l0", transposed=False)
        P, H = self._sizes(0)
        sizes = self.input_size, H, P
        call = partial(k.lstm_call, packed, projection, sizes, *axes, sharing)
        if self._variant.trains_plainly:
            return call
        return lambda *arguments: None if arguments[-1] else call(*arguments)

    def _call_back_kernel(self, k: Any, parameters: Parameters) -> Callable[..., Any]:
        return partial(
            k.lstm_call_back,
            pack_transposed(k, parameters, "weight_hh_l0"),
            pack_transposed(k, parameters, "weight_ih_l0"),
        )

    def _more_gradients(
        self, kept: dict[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        if self.proj_size:
            yield "weight_hr", kept["dprojected"], kept["hidden"]

    def _recurrent_sums(self, kept: dict[str, np.ndarray]) -> Iterator[RecurrentSum]:
        dz = kept.get("recurrent_gates")
        yield RecurrentSum(slice(None), None if dz is None else joined(dz), kept.get("masked"))

    def _vector_gradients(self, kept: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        return self._variant.vector_gradients(kept, self.bias)

    def _pack(self, k: Any, parameters: Parameters, suffix: str) -> Any:
        W, R = parameters["weight_ih" + suffix], parameters["weight_hh" + suffix]
        if not self.bias or self._variant.layer_norm:  # whose biases come behind the norm
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
        projected = f", proj_size={self.proj_size}" if self.proj_size else ""
        return f"LSTM({self._describe()}{projected}{self._variant.describe()})"


class LSTMCell(RecurrentCell):
    """One step of an LSTM; `torch.nn.LSTMCell` in names, shapes and numbers.

    ``h, c = cell(x, (h, c))`` with x (B, I) and state parts (B, H), or (I,) and (H,); the state is
    zero where it is None. Equations and arguments as in `LSTM`.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (4H, I), (4H, H), (4H,), (4H,), gates in the order i, f, g, o; those of variants likewise.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        peepholes: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        activations: Any = ACTIVATIONS,
        clip: float | None = None,
        zoneout: tuple[float, float] = (0.0, 0.0),
        init: str = "torch",
        forget_bias: float | None = None,
        t_max: float | None = None,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        layer = LSTM(
            input_size,
            whole_number("hidden_size", hidden_size),
            bias=bias,
            peepholes=peepholes,
            coupled=coupled,
            layer_norm=layer_norm,
            activations=activations,
            clip=clip,
            zoneout=zoneout,
            init=init,
            forget_bias=forget_bias,
            t_max=t_max,
            dtype=dtype,
            rng=rng,
        )
        super().__init__(layer)
