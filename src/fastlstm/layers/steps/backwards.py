"""A recurrent layer that reads from the end."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_bools, read_numbers
from fastlstm.engine.reading.mask import Axes, read_lengths, within
from fastlstm.engine.stack import Stack
from fastlstm.module import Gradients, Module, Output, Tape, check_tape


@dataclass(slots=True, eq=False)
class BackwardsTape(Tape):
    inner: Any  # the layer's tape
    axes: Axes | None  # of x and dy; None if they are lists
    lengths: np.ndarray | None


class Backwards(Module):
    """A recurrent layer that reads each sequence from its end: Keras' `go_backwards`.

    The outputs stand in the order of reading: the first is that of the sequence's last step.
    Within a row of a ragged batch, the valid steps are turned round and padding stays on the right.

    Parameters
    ----------
    layer : LSTM, GRU, RNN or another `fastlstm.engine.Stack`

    Raises
    ------
    TypeError
        `layer` is not a recurrent layer.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> lstm, x = fl.LSTM(3, 5, rng=0), np.arange(42.0).reshape(7, 2, 3)
    >>> y, (h, c) = fl.Backwards(lstm)(x)
    >>> bool((y == lstm(x[::-1])[0]).all())
    True
    """

    is_recurrent = True

    def __init__(self, layer: Any):
        if not isinstance(layer, Stack) or layer.one_step:
            raise TypeError(f"layer: expected a recurrent layer, got {type(layer).__name__}")
        self.layer = layer

    @property
    def batch_first(self) -> bool:
        """Whether x and the output are (B, T, features): the layer's."""
        return bool(self.layer.batch_first)

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
        threads: int | None = None,
    ) -> tuple[Any, Any]:
        """Compute the outputs of every step and the final state, as inference.

        Parameters
        ----------
        x, state, lengths, threads
            As the layer takes them.
        resets : None
            Not to be had backwards.
        mask, masked_output
            As the layer takes them; the mask is turned round with x, so that a masked step's place
            in y is that in the order of reading.

        Returns
        -------
        y : array or list
            As of the layer, in the order of reading.
        state
            After the step read last.

        Raises
        ------
        ValueError, TypeError
            As of the layer; or there are resets.
        """
        x, mask, _, lengths = self._turned(x, lengths, resets, mask)
        result: tuple[Any, Any] = self.layer(
            x, state, lengths=lengths, mask=mask, masked_output=masked_output, threads=threads
        )
        return result

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        masked_output: str = "zero",
        recompute: int | str | None = None,
        threads: int | None = None,
    ) -> tuple[tuple[Any, Any], BackwardsTape]:
        """Compute as a call does, and return a tape.

        Parameters
        ----------
        x, state, lengths, resets, mask, masked_output, threads
            As in a call.
        recompute : int or "sqrt", optional
            As the layer's `forward` takes it.

        Returns
        -------
        (y, state)
        tape : BackwardsTape
            The argument of one `backward`.
        """
        x, mask, axes, lengths = self._turned(x, lengths, resets, mask)
        options = {"mask": mask, "masked_output": masked_output, "recompute": recompute}
        result, inner = self.layer.forward(x, state, lengths=lengths, threads=threads, **options)
        return result, BackwardsTape(self, inner, axes, lengths)

    def backward(
        self, tape: Any, dy: Any = None, dstate: Any = None, *, threads: int | None = None
    ) -> Gradients:
        """Return the gradients of x, of the initial state and of the parameters.

        Parameters
        ----------
        tape : BackwardsTape
            From `forward`.
        dy : array or list, optional
            Gradient of y, in the order of reading.
        dstate : array or tuple of arrays, optional
            Gradient of the final state.
        threads : int, optional
            As the layer takes it.

        Returns
        -------
        Gradients
            That of x in x's order.

        Raises
        ------
        ValueError
            The tape is from another layer or was used, or a gradient's shape does not fit.
        """
        tape = check_tape(tape, BackwardsTape, self)
        grads = self.layer.backward(tape.inner, dy, dstate, threads=threads)
        tape.claim()
        if tape.axes is None:
            dx: Any = [array[::-1].copy() for array in grads.x]
        else:
            dx = _turn(grads.x, tape.axes, tape.lengths)
        return self.collect(x=dx, state=grads.state, layer=grads)

    def zero_state(self, B: int) -> Any:
        """Return the state in which B rows begin: the layer's."""
        return self.layer.zero_state(B)

    def step(self, x: Any, state: Any, rows: Any = None, out: Any = None) -> Any:
        """Raise ValueError: a stream has no end to begin from."""
        raise ValueError("layer: expected one that reads forward, for one step, got Backwards")

    def _turned(
        self, x: Any, lengths: Any, resets: Any, mask: Any
    ) -> tuple[Any, Any, Axes | None, np.ndarray | None]:
        """x and the mask in the order of reading, the axes of x, and the lengths."""
        if resets is not None:
            raise ValueError("resets: expected None, since a layer that reads backwards takes none")
        if isinstance(x, (list, tuple)):
            turned = [_flipped(read_numbers(f"x[{k}]", part)) for k, part in enumerate(x)]
            if isinstance(mask, (list, tuple)):
                mask = [_flipped(read_bools(f"mask[{k}]", part)) for k, part in enumerate(mask)]
            return turned, mask, None, lengths
        x = read_numbers("x", x)
        if x.ndim not in (2, 3):
            return x, mask, None, lengths  # the layer says what is wrong
        axes = Axes(x.ndim == 3, self.batch_first)
        B, T = axes.rows(x).shape[:2]
        if lengths is not None and axes.has_batch:
            lengths = read_lengths("lengths", lengths, T, B)
        if mask is not None:
            mask = read_bools("mask", mask)
            check_shape("mask", mask, *x.shape[:-1])
            mask = _turn(mask, axes, lengths)
        return _turn(x, axes, lengths), mask, axes, lengths

    @property
    def _inputs(self) -> int | None:
        return self.layer._inputs

    def _output(self, before: Output) -> Output:
        return self.layer._output(before)


def _flipped(array: np.ndarray) -> np.ndarray:
    return array[::-1] if array.ndim else array  # the layer says what is wrong


def _turn(array: np.ndarray, axes: Axes, lengths: np.ndarray | None) -> np.ndarray:
    """The valid steps of each row in the other order, as a new array."""
    rows = axes.rows(array)
    if lengths is None or not axes.has_batch:
        return axes.of_rows(rows[:, ::-1]).copy()
    steps = np.arange(rows.shape[1])
    steps = np.where(within(lengths, len(steps)), lengths[:, None] - 1 - steps, steps)
    return axes.of_rows(rows[np.arange(len(rows))[:, None], steps]).copy()
