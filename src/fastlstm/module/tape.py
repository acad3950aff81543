"""The tape that `forward` leaves for `backward`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastlstm.module.base import Module


@dataclass(slots=True, eq=False)
class Tape:
    """The arrays and options of a `forward` for its `backward`; its fields are not public.

    It has copies of all that a caller may change.
    """

    layer: Module
    # One item, which a backward takes: of two at once on two threads, one gets it.
    unused: list[None] = field(default_factory=[None].copy, init=False)

    def claim(self) -> None:
        """Take the tape for one backward; ValueError if another has it."""
        try:
            self.unused.pop()
        except IndexError:
            raise _used() from None

    def give_back(self) -> None:
        """Undo `claim`, for a backward that has not changed the tape."""
        self.unused.append(None)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(
            "tape: forward returns ((y, state), tape): call the layer for inference, "
            "or unpack (y, state), tape"
        )

    def __reduce__(self) -> Any:
        raise TypeError(
            "tape: cannot be pickled or copied: it serves one backward, in the process of its "
            "forward; pickle the layer"
        )


AnyTape = TypeVar("AnyTape", bound=Tape)
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])
OF_BACKWARD = """{summary}

Parameters
----------
tape : {tape}
    From `forward`.
dy : array
    Gradient of y, in y's shape.

Returns
-------
Gradients

Raises
------
ValueError
    The tape is from another layer or was used, or dy's shape is not y's.
"""


def describe_backward(method: AnyFunction) -> AnyFunction:
    """Complete the docstring of a layer's `backward`, which has its first line."""
    tape = f"{method.__qualname__.partition('.')[0]}Tape"
    method.__doc__ = OF_BACKWARD.format(summary=method.__doc__, tape=tape)
    return method


def check_tape(tape: Any, kind: type[AnyTape], layer: Module) -> AnyTape:
    """Return `tape`, which must be from `layer` and not be claimed by a backward."""
    if not isinstance(tape, kind) or (
        tape.layer is not layer and tape.layer._unbound is not layer._unbound
    ):
        raise ValueError(f"tape: expected what this layer's forward returned, got {_origin(tape)}")
    if not tape.unused:
        raise _used()
    return tape


def _used() -> ValueError:
    return ValueError("tape: expected one not used yet; each forward serves one backward")


def _origin(tape: Any) -> str:
    if isinstance(tape, Tape):
        return f"that of another layer, {type(tape.layer).__name__}"
    return type(tape).__name__
