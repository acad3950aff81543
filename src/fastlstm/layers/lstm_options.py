"""The options of an LSTM, and the cell that they describe."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import read_flag, read_number
from fastlstm.engine.dropout import draw, draw_dropout
from fastlstm.engine.initial import INITS, initial, read_init
from fastlstm.kernels.arguments import (
    Activation,
    Kernels,
    LayerNorm,
    LSTMOptions,
    LSTMWeights,
    Masks,
    Packed,
)
from fastlstm.layers.activations import read_activations, read_clip
from fastlstm.layers.recurrent import untrained

ACTIVATIONS = ("sigmoid", "tanh", "tanh")


class Start(NamedTuple):
    """The options that set the initial values of parameters."""

    init: str
    forget_bias: float | None
    t_max: float | None


class Variant(NamedTuple):
    """The options in which a cell can differ from the plain LSTM's."""

    peepholes: bool = False
    coupled: bool = False
    layer_norm: bool = False
    activations: tuple[Activation, ...] = read_activations("activations", ACTIVATIONS, 3)
    clip: float | None = None
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)


class Cell(NamedTuple):
    """The `fastlstm.engine.cell.Cell` of an LSTM."""

    inputs: int  # features of x
    H: int  # hidden units
    P: int  # features of the output; H without a projection
    bias: Any
    dtype: np.dtype
    variant: Variant = Variant()
    start: Start = Start("torch", None, None)

    @property
    def state(self) -> tuple[str, ...]:
        return "h", "c"

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.P, self.H

    @property
    def untrained(self) -> tuple[str, ...]:
        return untrained(self.bias)

    @property
    def draws(self) -> bool:
        return bool(self.variant.recurrent_dropout) or any(self.variant.zoneout)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        H, P = self.H, self.P
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (4 * H, self.inputs),
            "weight_hh": (4 * H, P),
        }
        if self.bias:
            shapes |= {"bias_ih": (4 * H,), "bias_hh": (4 * H,)}
        if P != H:
            shapes["weight_hr"] = (P, H)
        if self.variant.peepholes:
            shapes["weight_peephole"] = (3 * H,)
        if self.variant.layer_norm:
            shapes |= {"weight_ln_ih": (4 * H,), "weight_ln_hh": (4 * H,), "weight_ln_c": (H,)}
        if self.variant.layer_norm and self.bias:
            shapes["bias_ln_c"] = (H,)
        return shapes

    def initial(self, rng: "np.random.Generator") -> dict[str, np.ndarray]:
        H, (init, forget_bias, t_max) = self.H, self.start
        shapes = self.shapes()
        arrays = initial(
            {name: shape for name, shape in shapes.items() if "_ln_" not in name}, H, init, rng
        )
        # torch has two biases; the whole value goes into bias_ih, and zero into bias_hh.
        if forget_bias is not None:
            arrays["bias_ih"][H : 2 * H], arrays["bias_hh"][H : 2 * H] = forget_bias, 0
        if t_max is not None:
            memory = np.log(rng.uniform(1, t_max - 1, H))
            arrays["bias_ih"][: 2 * H] = np.concatenate([-memory, memory])
            arrays["bias_hh"][: 2 * H] = 0
        for name in shapes.keys() - arrays.keys():  # layer norm's gains and bias
            arrays[name] = np.full(shapes[name], float(name != "bias_ln_c"))
        return {name: arrays[name] for name in shapes}

    def pack(
        self, kernels: Kernels, parameters: Mapping[str, np.ndarray], backward: bool
    ) -> Packed:
        get = parameters.get
        norm = None
        if self.variant.layer_norm:
            of_x, of_h, of_c = (parameters[f"weight_ln_{of}"] for of in ("ih", "hh", "c"))
            norm = LayerNorm(of_x, of_h, of_c, get("bias_ln_c"))
        weights = LSTMWeights(
            parameters["weight_ih"],
            parameters["weight_hh"],
            get("bias_ih"),
            get("bias_hh"),
            get("weight_hr"),
            get("weight_peephole"),
            norm,
        )
        variant = self.variant
        gate, candidate, output = variant.activations
        clip = np.inf if variant.clip is None else variant.clip
        options = LSTMOptions(gate, candidate, output, clip, variant.coupled, *variant.zoneout)
        return kernels.pack_lstm(weights, options, backward)

    def draw(self, rng: "np.random.Generator", T: int, B: int) -> Masks | None:
        if not self.draws:
            return None
        factors = kept_h = kept_c = None
        p, (of_h, of_c) = self.variant.recurrent_dropout, self.variant.zoneout
        if p:
            factors = draw_dropout(rng, (B, self.P), p, axis=0).factors(self.dtype)
        if of_h:
            kept_h = draw(rng, (T, B, self.P), of_h, axis=1)
        if of_c:
            kept_c = draw(rng, (T, B, self.H), of_c, axis=1)
        return Masks(factors, kept_h, kept_c)


def read_variant(
    *,
    peepholes: Any,
    coupled: Any,
    layer_norm: Any,
    activations: Any,
    clip: Any,
    recurrent_dropout: Any,
    zoneout: Any,
) -> Variant:
    """The options of `LSTM`, checked."""
    if not isinstance(zoneout, (tuple, list)) or len(zoneout) != 2:
        raise ValueError(f"zoneout: expected a tuple (of h, of c), got {zoneout!r}")
    return Variant(
        read_flag("peepholes", peepholes),
        read_flag("coupled", coupled),
        read_flag("layer_norm", layer_norm),
        read_activations("activations", activations, 3),
        read_clip("clip", clip),
        read_number("recurrent_dropout", recurrent_dropout, 0, 1),
        (read_number("zoneout[0]", zoneout[0], 0, 1), read_number("zoneout[1]", zoneout[1], 0, 1)),
    )


def read_start(init: Any, forget_bias: Any, t_max: Any, bias: Any, coupled: bool) -> Start:
    """The arguments of `LSTM` that set initial values of parameters, checked."""
    read_init(init, (*INITS, "chrono"))
    if forget_bias is not None:
        forget_bias = read_number("forget_bias", forget_bias, -np.inf, np.inf)
        for reason, refused in {
            "needs bias=True, got bias=False": not bias,
            "init='chrono' sets it, so expected None": init == "chrono",
            "coupled gates have none, so expected None": coupled,
        }.items():
            if refused:
                raise ValueError(f"forget_bias: {reason}")
    if init == "chrono":
        if not bias:
            raise ValueError("init: 'chrono' sets biases, so it needs bias=True")
        if t_max is None:
            raise ValueError("t_max: init='chrono' needs it, got None")
        t_max = read_number("t_max", t_max, 2, np.inf)
    elif t_max is not None:
        raise ValueError(f"t_max: only init='chrono' has one, so expected None, got {t_max!r}")
    if forget_bias is None and init == "keras" and bias:
        forget_bias = 1.0
    return Start(init, forget_bias, t_max)
