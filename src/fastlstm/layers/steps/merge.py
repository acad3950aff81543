"""The directions of a recurrent layer brought together."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, memory_for, quiet, read_array, read_floats
from fastlstm.module import Gradients, Module, Output, Tape, check_tape, describe_backward

KINDS = "sum", "mul", "ave"


@dataclass(slots=True, eq=False)
class MergeTape(Tape):
    x: np.ndarray


class Merge(Module):
    """The two halves of the features joined into one: Keras' `merge_mode` of `Bidirectional`.

    A bidirectional layer gives the outputs of its directions side by side, forward first. (Without
    this layer they stay so, as with Keras' mode "concat".)

    Parameters
    ----------
    kind : "sum", "mul" or "ave"
        Their sum, product or mean, number by number.

    Raises
    ------
    ValueError
        There is no such kind.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> fl.Merge("sum")(np.array([[1.0, 2.0, 30.0, 40.0]]))
    array([[31., 42.]])
    >>> model = fl.Sequential(fl.GRU(3, 5, bidirectional=True), fl.Merge("ave"))
    """

    acts_on_steps = True

    def __init__(self, kind: str):
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f'kind: expected "sum", "mul" or "ave", got {kind!r}')
        self.kind = kind

    def __call__(self, x: Any) -> np.ndarray:
        """Join the halves of x.

        Parameters
        ----------
        x : array (..., 2F)

        Returns
        -------
        y : array (..., F)
            float32 or float64, as x; other real dtypes are cast to float64.

        Raises
        ------
        ValueError
            The last axis has no halves.
        """
        return self._apply(read_floats("x", x))

    def forward(self, x: Any) -> tuple[np.ndarray, MergeTape]:
        """Join the halves of x as a call does, and return a tape.

        Parameters
        ----------
        x : array (..., 2F)

        Returns
        -------
        y : array (..., F)
        tape : MergeTape
            The argument of one `backward`.
        """
        array = np.array(read_floats("x", x), order="C")
        return self._apply(array), MergeTape(self, array)

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of x."""
        tape = check_tape(tape, MergeTape, self)
        dy, x = read_array("dy", dy, tape.x.dtype), tape.x
        check_shape("dy", dy, *x.shape[:-1], x.shape[-1] // 2)
        tape.claim()
        with quiet(), memory_for("x", x.shape):
            if self.kind == "mul":
                first, second = np.split(x, 2, axis=-1)
                return Gradients(x=np.concatenate([dy * second, dy * first], axis=-1))
            part = dy * dy.dtype.type(0.5) if self.kind == "ave" else dy
            return Gradients(x=np.concatenate([part, part], axis=-1))

    def _apply(self, x: np.ndarray) -> np.ndarray:
        if not x.ndim or x.shape[-1] % 2:
            raise ValueError(f"x: expected an even number of features, got shape {x.shape}")
        first, second = np.split(x, 2, axis=-1)
        with quiet(), memory_for("x", x.shape):
            if self.kind == "mul":
                return np.asarray(first * second)
            total = first + second
            return np.asarray(total * total.dtype.type(0.5) if self.kind == "ave" else total)

    def _output(self, before: Output) -> Output:
        features = None if before.features is None else before.features // 2
        return before._replace(features=features, reverse=(False,))
