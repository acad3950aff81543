"""What `forward` leaves for `backward` in the layers without a recurrence, and in Sequential."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastlstm.layers.module import Module


@dataclass(slots=True, eq=False)
class Tape:
    """Opaque to callers. Arrays in it are kept, not copied: the input must not change meanwhile."""

    layer: Module
    used: bool = field(default=False, init=False)


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
