"""One step of one cell as a module."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.changes import CHANGES
from fastlstm.engine.cell import Cell
from fastlstm.engine.reading.plan import RecurrentTape
from fastlstm.engine.stack import Stack
from fastlstm.kernels import kernels
from fastlstm.module import Gradients, check_tape


class OneStep(Stack):
    """One step of one cell, which takes a state and returns the next.

    Parameters
    ----------
    cell : Cell
    dtype : float32 or float64
    rng : None, seed or numpy.random.Generator
        Source of initial values and of all random numbers in training.
    parameters : mapping of str to array, optional
        All parameters by name, in the cell's shapes and this dtype, in place of initial values.
    """

    is_recurrent = False
    one_step = True

    def __init__(
        self,
        cell: Cell,
        *,
        dtype: Any = np.float32,
        rng: Any = None,
        parameters: Mapping[str, np.ndarray] | None = None,
    ):
        super().__init__([[cell]], dtype=dtype, rng=rng, parameters=parameters)

    def __call__(self, x: Any, state: Any = None) -> Any:  # type: ignore[override]
        """Compute the next state, as inference.

        Parameters
        ----------
        x : array (B, I), or (I,)
            Any strides; other real or integer dtypes are cast to the cell's.
        state : array (B, H) or tuple of arrays, optional
            No axis B if x has none; zeros if None.

        Returns
        -------
        state : as the argument; new arrays

        Raises
        ------
        ValueError
            A shape does not fit; the message names the argument.
        TypeError
            An array does not hold real numbers.
        """
        change, _, infer = self._last_infer
        if change is not CHANGES.last:
            infer = self._get_infer(1)
        result = infer(x, state)
        if result is NotImplemented:
            result = infer(*self._read(x, state, self._parameters).arguments)
        return result[1]

    def forward(self, x: Any, state: Any = None) -> tuple[Any, RecurrentTape]:  # type: ignore[override]
        """Compute the next state as in training: ``state, tape``."""
        k, parameters = kernels(self.dtype), self._parameters
        prepared = self.cells.prepared(k, parameters, 1, training=True)
        masks, result = None, NotImplemented
        if not self._draws:
            result = prepared.forward(x, state, None, None, None, None, True)
        if result is NotImplemented:
            call = self._read(x, state, parameters)
            masks = self._draw(call, prepared) if self._draws else None
            result = prepared.forward(*call.arguments, None, masks, True)
        _, final, saved, arguments = result
        return final, RecurrentTape(self, parameters, k, arguments, masks, saved)

    def backward(self, tape: RecurrentTape, dstate: Any = None) -> Gradients:  # type: ignore[override]
        """Compute the gradients of x, the given state and every parameter.

        Parameters
        ----------
        tape : RecurrentTape
            From `forward`. A tape serves one backward.
        dstate : array or tuple of arrays, optional
            Gradient of the next state, in its form; zeros if None.
        """
        tape = check_tape(tape, RecurrentTape, self)
        prepared = self.cells.prepared(tape.kernels, tape.parameters, 1, training=True)
        tape.claim()
        kept = *tape.arguments, tape.masks, tape.saved
        result = prepared.backward(*kept, None, dstate)
        if result is NotImplemented:
            try:
                form, call = self._form, tape.call
                dstate = form.layout.read_step("dstate", dstate, call.batch(form), form.dtype)
            except (TypeError, ValueError):
                tape.give_back()
                raise
            result = prepared.backward(*kept, None, dstate)
        tape.arguments, tape.saved = (None, None, None, None), None
        dx, dfirst, gradients = result
        return Gradients(dx, dfirst, self.cells.by_name(gradients))
