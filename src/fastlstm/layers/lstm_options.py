"""What can vary about an LSTM's cell: read from a user, kept for backward, told to the kernels."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import flag, real_number
from fastlstm.layers.activations import Activation, read_activations, read_clip
from fastlstm.layers.module import Parameters

ACTIVATIONS = ("sigmoid", "tanh", "tanh")
FORWARD = ("kept_h", "kept_c", "mask", "masked", "recurrent_gates", "scales")
BACKWARD = ("kept_h", "kept_c", "mask", "recurrent_gates", "scales", "d_peepholes", "d_norm")


class Variant(NamedTuple):
    """The options of `LSTM` that make its cell another one."""

    peepholes: bool
    coupled: bool
    layer_norm: bool
    activations: tuple[Activation, ...]
    clip: float | None
    recurrent_dropout: float
    zoneout: tuple[float, float]

    @property
    def is_plain(self) -> bool:
        """Whether inference is that of the plain LSTM."""
        return self._replace(recurrent_dropout=0.0) == PLAIN

    @property
    def trains_plainly(self) -> bool:
        return self == PLAIN

    def shapes(self, H: int, bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(kind, shape) of every parameter that the plain LSTM has not."""
        if self.peepholes:
            yield "weight_peephole", (3 * H,)
        if self.layer_norm:
            yield "weight_ln_ih", (4 * H,)
            yield "weight_ln_hh", (4 * H,)
            yield "weight_ln_c", (H,)
            if bias:
                yield "bias_ln_c", (H,)

    def describe(self) -> str:
        """The arguments, those at their default left out."""
        pairs = zip(self._fields, self, PLAIN, strict=True)
        return "".join(f", {name}={value}" for name, value, plain in pairs if value != plain)

    def cell(self, parameters: Parameters, suffix: str, H: int, dtype: np.dtype) -> dict[str, Any]:
        """The kernels' arguments that say which cell it is."""
        return {
            "activations": np.array(self.activations, dtype),
            "clip": np.inf if self.clip is None else self.clip,
            "coupled": self.coupled,
            "peepholes": self._peepholes(parameters, suffix, H),
            "norm": self._norm(parameters, suffix, H, dtype),
        }

    def keep(
        self, rng: "np.random.Generator", T: int, B: int, P: int, H: int, dtype: np.dtype
    ) -> dict[str, np.ndarray]:
        """What training keeps beyond the plain LSTM's, its random masks among it."""
        kept = {}
        if self.recurrent_dropout:
            mask = 1 - draw(rng, (B, P), self.recurrent_dropout).astype(dtype)
            kept["mask"] = (
                mask / (1 - self.recurrent_dropout) if self.recurrent_dropout < 1 else mask
            )
            kept["masked"] = np.empty((T, B, P), dtype)
        if self.zoneout[0]:
            kept["kept_h"] = draw(rng, (T, B, P), self.zoneout[0])
        if self.zoneout[1]:
            kept["kept_c"] = draw(rng, (T, B, H), self.zoneout[1])
        if self.peepholes:
            kept["d_peepholes"] = np.zeros((B, 3, H), dtype)
        if self.layer_norm:
            kept["recurrent_gates"] = np.empty((T, B, 4, H), dtype)
            kept["scales"] = np.empty((T, B, 2, 4), dtype)
            kept["d_norm"] = np.zeros((B, 14, H), dtype)
        return kept

    def vector_gradients(
        self, kept: dict[str, np.ndarray], bias: bool
    ) -> Iterator[tuple[str, np.ndarray]]:
        """(name, gradient of each row [B, N])."""
        if self.peepholes:
            yield "weight_peephole", _flat(kept["d_peepholes"])
        if self.layer_norm:
            rows = kept["d_norm"]
            yield "weight_ln_ih", _flat(rows[:, 0:4])
            yield "weight_ln_hh", _flat(rows[:, 4:8])
            yield "weight_ln_c", rows[:, 12]
            if bias:
                yield "bias_ih", _flat(rows[:, 8:12])
                yield "bias_hh", _flat(rows[:, 8:12])
                yield "bias_ln_c", rows[:, 13]

    def _peepholes(self, parameters: Parameters, suffix: str, H: int) -> np.ndarray | None:
        if not self.peepholes:
            return None
        return parameters["weight_peephole" + suffix].reshape(3, H)

    def _norm(
        self, parameters: Parameters, suffix: str, H: int, dtype: np.dtype
    ) -> np.ndarray | None:
        if not self.layer_norm:
            return None
        rows = np.zeros((14, H), dtype)
        rows[0:4] = parameters["weight_ln_ih" + suffix].reshape(4, H)
        rows[4:8] = parameters["weight_ln_hh" + suffix].reshape(4, H)
        rows[12] = parameters["weight_ln_c" + suffix]
        if "bias_ih" + suffix in parameters:
            bias = parameters["bias_ih" + suffix] + parameters["bias_hh" + suffix]
            rows[8:12] = bias.reshape(4, H)
            rows[13] = parameters["bias_ln_c" + suffix]
        return rows


PLAIN = Variant(
    False,
    False,
    False,
    read_activations("activations", ACTIVATIONS, 3),
    None,
    0.0,
    (0.0, 0.0),
)


def read_variant(
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
        flag("peepholes", peepholes),
        flag("coupled", coupled),
        flag("layer_norm", layer_norm),
        read_activations("activations", activations, 3),
        read_clip("clip", clip),
        real_number("recurrent_dropout", recurrent_dropout, 0, 1),
        (real_number("zoneout[0]", zoneout[0], 0, 1), real_number("zoneout[1]", zoneout[1], 0, 1)),
    )


def draw(rng: "np.random.Generator", shape: tuple[int, ...], chance: float) -> np.ndarray:
    """Bools that are true with `chance`, to 1 in 2³² of it; twice as fast as by floats."""
    if chance == 1:
        return np.ones(shape, np.bool_)
    size = math.prod(shape)
    words = rng.integers(2**64 - 1, size=(size + 1) // 2, dtype=np.uint64, endpoint=True)
    flags: np.ndarray = words.view(np.uint32)[:size] < np.uint32(chance * 2**32)
    return flags.reshape(shape)


def _flat(rows: np.ndarray) -> np.ndarray:
    """[B, N, H] as [B, N * H]."""
    B, N, H = rows.shape
    return rows.reshape(B, N * H)
