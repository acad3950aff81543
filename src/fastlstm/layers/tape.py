"""What `forward` leaves for `backward`."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastlstm.layers.inputs import Plan
from fastlstm.layers.module import Module, Parameters


@dataclass(slots=True, eq=False)
class Tape:
    """Opaque to callers. Arrays in it are kept, not copied: the input must not change meanwhile."""

    layer: Module
    used: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False)
class LayerTape:
    """What one layer of the stack keeps."""

    x: np.ndarray  # [T, B, I], after dropout
    mask: np.ndarray | None  # [T, B, I]: dropout's factors
    y: np.ndarray  # [T, B, directions * P]
    kept: list[dict[str, np.ndarray]]  # what the cell keeps, by direction


@dataclass(slots=True, eq=False)
class RecurrentTape(Tape):
    parameters: Parameters
    kernels: Any
    plan: Plan
    learns_state: bool  # whether the state was the learned one
    layers: list[LayerTape] = field(default_factory=list)
    is_short: bool = False  # whether the forward was a short cut, and so may be the backward


AnyTape = TypeVar("AnyTape", bound=Tape)


def check_tape(tape: Any, kind: type[AnyTape], layer: Module) -> AnyTape:
    """`tape`, which must come from `layer` and not have served a backward yet."""
    if not isinstance(tape, kind) or tape.layer is not layer:
        raise ValueError(f"tape: expected what this layer's forward returned, got {_origin(tape)}")
    if tape.used:
        raise ValueError("tape: expected one not used yet; each forward serves one backward")
    return tape


def _origin(tape: Any) -> str:
    if isinstance(tape, Tape):
        return f"that of another layer, {type(tape.layer).__name__}"
    return type(tape).__name__
