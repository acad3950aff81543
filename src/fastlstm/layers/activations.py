"""The activations of a layer's gates, by the names that a user gives."""

from typing import Any

import numpy as np

from fastlstm.checks import read_number
from fastlstm.kernels.arguments import Activation, Kind

# The default values of ONNX's alpha and beta, for activations that have them.
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


def as_written(activation: Activation) -> Any:
    """The activation as a user writes it: its name alone, or with values that are not defaults."""
    name = Kind(activation.kind).name.lower()
    defaults = PARAMETERS[name]
    given = activation[1 : 1 + len(defaults)]
    return name if given == defaults else (name, *given)


def read_activation(name: str, value: Any) -> Activation:
    """Read `value`: a name in `PARAMETERS`, (name, alpha), or (name, alpha, beta)."""
    kind, *given = value if isinstance(value, (tuple, list)) and value else (value,)
    if not isinstance(kind, str) or kind not in PARAMETERS:
        known = ", ".join(PARAMETERS)
        raise ValueError(f"{name}: expected one of {known}, got {kind!r}")
    defaults = PARAMETERS[kind]
    if len(given) > len(defaults):
        takes = " and ".join(("alpha", "beta")[: len(defaults)]) or "no parameter"
        raise ValueError(f"{name}: {kind} takes {takes}, got {value!r}")
    names = (f"{name}: alpha", f"{name}: beta")
    numbers = [read_number(*pair, -np.inf, np.inf) for pair in zip(names, given, strict=False)]
    alpha, beta, *_ = (*numbers, *defaults[len(numbers) :], 0.0, 0.0)
    return Activation(Kind[kind.upper()], alpha, beta)


def read_activations(name: str, value: Any, count: int) -> tuple[Activation, ...]:
    """Read `value`: a tuple or list of `count` values for `read_activation`."""
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise ValueError(f"{name}: expected a tuple of {count} activations, got {value!r}")
    return tuple(read_activation(f"{name}[{k}]", part) for k, part in enumerate(value))


def read_clip(name: str, value: Any) -> float | None:
    """Read `value`: a bound above 0, or None for no bound."""
    if value is None:
        return None
    return read_number(name, value, 0, np.inf, open_below=True)
