"""Checks of the operators' attributes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.checks import read_number
from fastlstm.layers.activations import PARAMETERS

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
# ONNX writes LeakyRelu for leaky_relu, and ignores case.
ACTIVATIONS = {name.replace("_", ""): name for name in PARAMETERS}

Activations = tuple[tuple[Any, ...], ...]  # in the form of layers: (name, alpha, beta) for each


def read_direction(value: Any) -> tuple[bool, ...]:
    """Read the attribute: for each direction, whether it reads from the end."""
    if not isinstance(value, str) or value not in DIRECTIONS:
        wanted = ", ".join(DIRECTIONS)
        raise ValueError(f"direction: expected one of {wanted}, got {value!r}")
    return DIRECTIONS[value]


def read_switch(name: str, value: Any) -> bool:
    """Read an attribute that is 0 or 1."""
    if not isinstance(value, (bool, int, np.bool_, np.integer)):
        raise TypeError(f"{name}: expected 0 or 1, got {value!r}")
    if value not in (0, 1):
        raise ValueError(f"{name}: expected 0 or 1, got {value!r}")
    return bool(value)


def read_activations(
    names: Any, alphas: Any, betas: Any, defaults: tuple[str, ...], directions: int
) -> list[Activations]:
    """Read the activations of every direction.

    An activation that has an alpha or a beta takes the next unused value of `alphas` or `betas`;
    if all are used, it has its default value.
    """
    count = len(defaults) * directions
    if names is None:
        names = defaults * directions
    if not isinstance(names, (tuple, list)) or len(names) != count:
        raise ValueError(f"activations: expected {count} names, got {names!r}")
    numbers = {
        "activation_alpha": _numbers("activation_alpha", alphas),
        "activation_beta": _numbers("activation_beta", betas),
    }
    activations = []
    for k, name in enumerate(names):
        if not isinstance(name, str) or name.lower() not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activations[{k}]: expected one of {known}, got {name!r}")
        kind = ACTIVATIONS[name.lower()]
        values = zip(numbers.values(), PARAMETERS[kind], strict=False)
        activations.append((kind, *(next(given, default) for given, default in values)))
    for attribute, left in numbers.items():
        if (unused := len(list(left))) > 0:
            raise ValueError(
                f"{attribute}: expected a value for each activation that takes one, "
                f"got {unused} too many"
            )
    size = len(defaults)
    return [tuple(activations[start : start + size]) for start in range(0, count, size)]


def _numbers(name: str, values: Any) -> Iterator[float]:
    if values is None:
        return iter(())
    if not isinstance(values, (tuple, list, np.ndarray)) or np.ndim(values) != 1:
        raise TypeError(f"{name}: expected a list of numbers, got {values!r}")
    return iter(
        [read_number(f"{name}[{k}]", value, -np.inf, np.inf) for k, value in enumerate(values)]
    )
