"""The skip connection of audio models, from a model's input to its output."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_array, read_floats, read_integers, read_size
from fastlstm.engine.reading.streams import check_step_out
from fastlstm.module import Gradients, Module, Output, Tape, check_tape


@dataclass(slots=True, eq=False)
class SkipTape(Tape):
    inner: Any
    form: tuple[tuple[int, ...], np.dtype]  # of y
    valid: np.ndarray | None  # which steps there are, with an axis for features


class Skip(Module):
    """A model with its first inputs added to its outputs: y = model(x) + x[…, :channels].

    It is called as the model is: with a recurrent layer in it, ``y, state = skip(x, state)``.
    Parameters are named "model.0.weight_ih_l0".

    Parameters
    ----------
    model : Module
        Of x (T, B, I), or with `batch_first` (B, T, I). Its output has as many features as
        `channels`; with one channel, any number, and the channel is added to each.
    channels : int

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> model = fl.interop.audio.Skip(fl.Sequential(fl.GRU(1, 5, rng=0), fl.Linear(5, 1, rng=0)))
    >>> x = np.ones((7, 2, 1), np.float32)
    >>> bool((model(x)[0] == model.model(x)[0] + x).all())
    True
    """

    def __init__(self, model: Module, channels: int = 1):
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a Module, got {type(model).__name__}")
        self.model: Any = model
        self.channels = read_size("channels", channels)
        self.is_recurrent = model.is_recurrent
        self.acts_on_steps = model.acts_on_steps

    def __call__(self, x: Any, state: Any = None, **options: Any) -> Any:
        """Return the model's result with the skip connection.

        Parameters
        ----------
        x : array
        state : state of the model, if it is recurrent
        **options : `lengths`, `resets` and `threads` of a recurrent model
            For lists of sequences and `mask`, put the module in a `Sequential`.

        Returns
        -------
        y, or (y, state)
        """
        self._check_options(state, options)
        x, valid = self._read(x, options.get("lengths"))
        if not self.is_recurrent:
            return self._add(self.model(x), x, valid)
        y, state = self.model(x, state, **options)
        return self._add(y, x, valid), state

    def forward(self, x: Any, state: Any = None, **options: Any) -> tuple[Any, SkipTape]:
        """Return what a call returns, and a tape.

        Parameters
        ----------
        x, state
            As in a call.
        **options : those of a call, and `recompute`

        Returns
        -------
        y, or (y, state)
        tape : SkipTape
            The argument of one `backward`.
        """
        self._check_options(state, options)
        x, valid = self._read(x, options.get("lengths"))
        if self.is_recurrent:
            (y, state), inner = self.model.forward(x, state, **options)
        else:
            y, inner = self.model.forward(x)
        y = self._add(y, x, valid)
        tape = SkipTape(self, inner, (y.shape, y.dtype), valid)
        return (y, state) if self.is_recurrent else y, tape

    def backward(
        self, tape: Any, dy: Any = None, dstate: Any = None, *, threads: int | None = None
    ) -> Gradients:
        """Return the gradients of x, the state and the model's parameters.

        Parameters
        ----------
        tape : SkipTape
            From `forward`.
        dy : array
            Gradient of y, in y's shape. None stands for zeros.
        dstate : gradient of the final state
        threads : int, optional

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError
            The tape is from another module or was used, or a shape does not fit.
        """
        tape = check_tape(tape, SkipTape, self)
        shape, dtype = tape.form
        dy = np.zeros(shape, dtype) if dy is None else read_array("dy", dy, dtype)
        check_shape("dy", dy, *shape)
        more = {"dstate": dstate, "threads": threads} if self.is_recurrent else {}
        if not self.is_recurrent and (dstate is not None or threads is not None):
            raise ValueError("dstate, threads: no layer is recurrent, so expected none of them")
        gradients = self.model.backward(tape.inner, dy, **more)
        tape.claim()
        through = dy if tape.valid is None else np.where(tape.valid, dy, 0)
        if self.channels == 1:
            through = through.sum(axis=-1, keepdims=True)
        gradients.x = gradients.x.copy()
        gradients.x[..., : self.channels] += through
        return self.collect(x=gradients.x, state=gradients.state, model=gradients)

    def zero_state(self, B: int) -> Any:
        """Return the state in which B rows begin, for `step`."""
        return self.model.zero_state(B)

    def step(self, x: Any, state: Any, rows: Any = None, out: Any = None) -> Any:
        """Compute one step of some rows, as inference, and update their state in place.

        Parameters
        ----------
        x : array (n, I)
        state, rows, out
            As `fastlstm.Sequential.step` takes them.

        Returns
        -------
        y : array (n, outputs)
        """
        x = read_floats("x", x)
        if out is not None:
            check_step_out(out, self._output(Output()), x, state)
        y = self._add(self.model.step(x, state, rows), x, None)
        if out is None:
            return y
        out[...] = y
        return out

    def _check_options(self, state: Any, options: dict[str, Any]) -> None:
        if not self.is_recurrent and (state is not None or options):
            given = ", ".join(["state"] * (state is not None) + list(options))
            raise ValueError(f"{given}: no layer is recurrent, so expected none")

    def _add(self, y: np.ndarray, x: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
        skipped = x[..., : self.channels].astype(y.dtype)
        if skipped.shape[-1] not in (1, y.shape[-1]):
            raise ValueError(
                f"channels: expected 1 or as many as outputs, {y.shape[-1]}, "
                f"got {skipped.shape[-1]}"
            )
        return np.asarray(y + (skipped if valid is None else np.where(valid, skipped, 0)))

    def _read(self, x: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """x, and with lengths which of its steps there are, with an axis for features."""
        if isinstance(x, (list, tuple)):
            raise TypeError("x: expected an array; put the module in a Sequential for a list")
        x = read_floats("x", x)
        if lengths is None:
            return x, None
        batch_first = bool(self._output(Output()).batch_first)
        steps = np.arange(x.shape[int(batch_first)])[:, None] < read_integers("lengths", lengths)
        return x, (steps.T if batch_first else steps)[..., None]

    def _output(self, before: Output) -> Output:
        after: Output = self.model._output(before)
        return after
