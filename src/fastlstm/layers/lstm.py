"""The long short-term memory layer."""

from typing import Any

import numpy as np

from fastlstm.checks import read_dtype, read_size
from fastlstm.engine.one_step import OneStep
from fastlstm.layers.activations import as_written
from fastlstm.layers.lstm_options import ACTIVATIONS, Cell, read_start, read_variant
from fastlstm.layers.recurrent import Recurrent, describe_shared, read_bias


class _Options:
    """The common options of `LSTM` and `LSTMCell`, as attributes."""

    def _read_options(
        self, *, bias: Any, dtype: Any, init: Any, forget_bias: Any, t_max: Any, **variant: Any
    ) -> dict[str, Any]:
        """Set the attributes, and return the keyword arguments of `Cell`."""
        self.bias = read_bias(bias)
        read = read_variant(**variant)
        for name, value in read._asdict().items():
            setattr(self, name, value)
        self.activations = tuple(map(as_written, read.activations))
        start = read_start(init, forget_bias, t_max, self.bias, read.coupled)
        self.init, self.forget_bias, self.t_max = init, forget_bias, t_max
        dtype = read_dtype("dtype", dtype)
        return {"bias": self.bias, "dtype": dtype, "variant": read, "start": start}


@describe_shared
class LSTM(_Options, Recurrent):
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
    input_size : ...
    hidden_size : ...
    num_layers : ...
    bias : ...
    batch_first : ...
    dropout : ...
    bidirectional : ...
    proj_size : int
        When above 0, the size P < H that the output is projected to; otherwise P is H.
    peepholes : bool
        Whether gates depend on the cell (Gers, Schraudolph & Schmidhuber 2002): p_i ∗ c, p_f ∗ c
        and p_o ∗ c' are added to the arguments of the σ of i, f and o.
    coupled : bool
        Whether f = 1 - i (Greff et al. 2017). Parameters keep their shapes; the rows of the forget
        gate have no effect and zero gradient.
    layer_norm : bool
        Whether W x, R h and the argument of the output's tanh are normalized (Ba, Kiros & Hinton
        2016, eq. 20 to 22). W x and R h are normalized gate by gate: preactivations are
        LN(W x) ∗ weight_ln_ih + LN(R h) ∗ weight_ln_hh + biases, and the output is
        h' = o ∗ tanh(LN(c') ∗ weight_ln_c + bias_ln_c), with ε = 1e-5.
    activations : tuple of three
        The activations of the gates, the candidate and the output: sigmoid, tanh, relu, affine,
        leaky_relu, thresholded_relu, scaled_tanh, hard_sigmoid, elu, softsign or softplus, or
        (name, alpha) or (name, alpha, beta), as ONNX defines them.
    clip : ...
    recurrent_dropout : float in [0, 1]
        In training, the probability that a number of h is zeroed before R multiplies it, with one
        mask for all steps of a sequence (Gal & Ghahramani 2016).
    zoneout : tuple of two floats in [0, 1]
        The probabilities that a number of h, and of c, keeps its old value in a step of training
        (Krueger et al. 2017). Inference computes the expected value. The output gate is applied to
        the new cell before zoneout. With `proj_size`, h is the projected h.
    init : "torch", "keras" or "chrono"
        "torch": every parameter U(-1/√H, 1/√H). "keras": Glorot-uniform weight_ih (Glorot &
        Bengio 2010), orthogonal weight_hh (Saxe et al. 2014), zero biases, forget bias 1.
        "chrono": as "torch", with the forget gate's bias log(U(1, t_max - 1)) and its negative as
        the input gate's bias (Tallec & Ollivier 2018, eq. 16). Initial gains of layer norm are 1,
        and initial learned states are 0.
    forget_bias : float, optional
        The initial value of the forget gate's bias: the sum of its two biases.
    t_max : float, optional
        For "chrono": the number of steps between the most distant dependencies.
    learn_initial_state : ...
    dtype : ...
    rng : ...

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, … : read-only arrays
        (4H, I), (4H, P), (4H,), (4H,), (P, H), gates in the order i, f, g, o; "_l{k}" for layer k,
        followed by "_reverse" for the second direction. All options are attributes, too.
    weight_peephole_l0, … : read-only arrays
        (3H,): the peepholes of i, f, o.
    weight_ln_ih_l0, weight_ln_hh_l0, weight_ln_c_l0, bias_ln_c_l0, … : read-only arrays
        (4H,), (4H,), (H,), (H,); bias_ln_c only with bias=True.
    initial_h_l0, initial_c_l0, … : read-only arrays
        (P,), (H,).

    Notes
    -----
    Within one compiled build, the bits of a row's result do not depend on the other rows of the
    batch, on padding, on the number of threads, or on how a sequence is cut into calls. One model
    may be called from many threads at once.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> lstm = fl.LSTM(3, 5, rng=0)
    >>> y, (h, c) = lstm(np.ones((7, 2, 3)))
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
        self.proj_size = P = read_size("proj_size", proj_size, minimum=0)
        options = self._read_options(
            bias=bias,
            dtype=dtype,
            init=init,
            forget_bias=forget_bias,
            t_max=t_max,
            peepholes=peepholes,
            coupled=coupled,
            layer_norm=layer_norm,
            activations=activations,
            clip=clip,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
        )

        def cell(inputs: int, H: int) -> Cell:
            if P >= H:
                raise ValueError(f"proj_size: expected less than hidden_size {H}, got {P}")
            return Cell(inputs, H, P or H, **options)

        super().__init__(
            cell,
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


class LSTMCell(_Options, OneStep):
    """One step of an LSTM; `torch.nn.LSTMCell` in names, shapes and numbers.

    ``h, c = cell(x, (h, c))`` takes x (B, I) and arrays of the state (B, H), or (I,) and (H,); None
    stands for a zero state. Equations are those of `LSTM`, as are the arguments, but for those of
    several layers or steps.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih, bias_hh : read-only arrays
        (4H, I), (4H, H), (4H,), (4H,), gates in the order i, f, g, o; the parameters of variants
        are those of `LSTM` without "_l0".

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> cell = fl.LSTMCell(3, 5, rng=0)
    >>> h, c = cell(np.ones((2, 3)))
    >>> h, c = cell(np.ones((2, 3)), (h, c))
    >>> h.shape
    (2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: Any = True,
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
        self.input_size = read_size("input_size", input_size)
        self.hidden_size = H = read_size("hidden_size", hidden_size)
        options = self._read_options(
            bias=bias,
            dtype=dtype,
            init=init,
            forget_bias=forget_bias,
            t_max=t_max,
            peepholes=peepholes,
            coupled=coupled,
            layer_norm=layer_norm,
            activations=activations,
            clip=clip,
            recurrent_dropout=0.0,
            zoneout=zoneout,
        )
        super().__init__(Cell(self.input_size, H, H, **options), dtype=dtype, rng=rng)
