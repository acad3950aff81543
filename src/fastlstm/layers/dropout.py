"""Dropout as a layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import (
    check_shape,
    memory_for,
    read_array,
    read_floats,
    read_generator,
    read_number,
)
from fastlstm.engine.dropout import Dropped, draw_dropout
from fastlstm.module import Gradients, Module, Output, Tape, check_tape, describe_backward


@dataclass(slots=True, eq=False)
class DropoutTape(Tape):
    dropped: Dropped
    dtype: np.dtype


class Dropout(Module):
    """In training (`forward`), zero each number with probability p and scale the rest by 1/(1 - p).

    A call is inference and returns x unchanged: see `fastlstm.engine.dropout`.

    Parameters
    ----------
    p : float in [0, 1]
    rng : None, seed or Generator
        Source of the masks.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> dropout = fl.Dropout(0.5, rng=0)
    >>> y, tape = dropout.forward(np.ones(100))
    >>> sorted(set(y.tolist())), bool((dropout(np.ones(100)) == 1).all())
    ([0.0, 2.0], True)
    """

    acts_on_steps = True

    def __init__(self, p: float = 0.5, *, rng: Any = None):
        self.p = read_number("p", p, 0, 1)
        self._rng = read_generator("rng", rng)

    def __call__(self, x: Any) -> np.ndarray:
        """Return x.

        Parameters
        ----------
        x : array of any shape

        Returns
        -------
        y : array
            x itself if it is float32 or float64; other real dtypes are cast to float64.
        """
        return read_floats("x", x)

    def forward(self, x: Any) -> tuple[np.ndarray, DropoutTape]:
        """Return x with random numbers zeroed and the others scaled, and a tape.

        Parameters
        ----------
        x : array of any shape

        Returns
        -------
        y : array
            Of x's shape, float32 or float64.
        tape : DropoutTape
            The argument of one `backward`.
        """
        array = read_floats("x", x)
        with memory_for("x", array.shape):
            dropped = draw_dropout(self._rng, array.shape, self.p)
            return dropped(array), DropoutTape(self, dropped, array.dtype)

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of x."""
        tape = check_tape(tape, DropoutTape, self)
        dy = read_array("dy", dy, tape.dtype)
        check_shape("dy", dy, *tape.dropped.kept.shape)
        tape.claim()
        return Gradients(x=tape.dropped(dy))

    def _output(self, before: Output) -> Output:
        return before

    def __repr__(self) -> str:
        return f"Dropout(p={self.p})"
