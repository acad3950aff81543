"""Which activations a layer's gates go through, as its user names them."""

from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import real_number
from fastlstm.kernels.reference.activations import Kind

# ONNX's alpha and beta, where an activation takes them, at the values they have unless given.
PARAMETERS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}


class Activation(NamedTuple):
    """An activation as kernels take it: `numpy.array(activation, dtype)`."""

    kind: int
    alpha: float
    beta: float

    @property
    def name(self) -> str:
        return Kind(self.kind).name.lower()

    def __repr__(self) -> str:
        """As a user writes it, parameters at their default left out."""
        defaults = PARAMETERS[self.name]
        given = self[1 : 1 + len(defaults)]
        return repr(self.name if given == defaults else (self.name, *given))


def read_activation(name: str, value: Any) -> Activation:
    """`value` is a name of `PARAMETERS`, or (name, alpha) or (name, alpha, beta)."""
    kind, *given = value if isinstance(value, (tuple, list)) and value else (value,)
    if not isinstance(kind, str) or kind not in PARAMETERS:
        known = ", ".join(PARAMETERS)
        raise ValueError(f"{name}: expected one of {known}, got {kind!r}")
    defaults = PARAMETERS[kind]
    if len(given) > len(defaults):
        takes = " and ".join(("alpha", "beta")[: len(defaults)]) or "no parameter"
        raise ValueError(f"{name}: {kind} takes {takes}, got {value!r}")
    names = (f"{name}: alpha", f"{name}: beta")
    numbers = [real_number(*pair, -np.inf, np.inf) for pair in zip(names, given, strict=False)]
    alpha, beta, *_ = (*numbers, *defaults[len(numbers) :], 0.0, 0.0)
    return Activation(Kind[kind.upper()], alpha, beta)


def read_activations(name: str, value: Any, count: int) -> tuple[Activation, ...]:
    """`value` is a sequence of `count` of what `read_activation` reads."""
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise ValueError(f"{name}: expected a tuple of {count} activations, got {value!r}")
    return tuple(read_activation(f"{name}[{k}]", part) for k, part in enumerate(value))


def read_clip(name: str, value: Any) -> float | None:
    """A bound above 0, or None for no bound."""
    if value is None:
        return None
    clip = real_number(name, value, 0, np.inf)
    if not clip:
        raise ValueError(f"{name}: expected a number above 0, got {value!r}")
    return clip
