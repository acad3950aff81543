"""Calls of a packed stack with tensors: forward, forward for training, and backward."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from fastlstm.engine.reading.state import form_of, parts_of, ready
from fastlstm.in_torch.packed import Packed

Tensors = Sequence[torch.Tensor]


class Ragged:
    """Where the rows of a PackedSequence's data lie in an array of steps."""

    def __init__(self, batch_sizes: torch.Tensor):
        sizes = batch_sizes.numpy()
        # The data hold the rows that have a step, the longest first, one step after the other.
        self._places = np.arange(sizes[0]) < sizes[:, None]  # [T, B]: which rows have a step
        self.lengths = self._places.sum(axis=0, dtype=np.intp)

    def steps(self, data: np.ndarray) -> np.ndarray:
        """An array of steps [T, B, ...], with zeros after a row's end."""
        steps = np.zeros((*self._places.shape, *data.shape[1:]), data.dtype)
        steps[self._places] = data
        return steps

    def data(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(steps[self._places])


class Saved:
    """What a call for training saves for one backward."""

    __slots__ = ("arguments", "calls", "ragged", "saved")

    def __init__(self, calls: Any, arguments: Any, saved: Any, ragged: Ragged | None):
        self.calls, self.arguments, self.saved, self.ragged = calls, arguments, saved, ragged


def infer(
    packed: Packed, x: torch.Tensor, batch_sizes: torch.Tensor | None, state: Tensors
) -> tuple[torch.Tensor, ...]:
    """Return y and the parts of the final state, new tensors; of a cell, the state alone."""
    array, given, ragged = _arrays(x, batch_sizes, state)
    lengths = None if ragged is None else ragged.lengths
    y, final = _done(packed.calls(False).forward(array, given, lengths))
    return _tensors(packed, y, final, ragged)


def train(
    packed: Packed, x: torch.Tensor, batch_sizes: torch.Tensor | None, state: Tensors
) -> tuple[tuple[torch.Tensor, ...], Saved]:
    """Compute as `infer` does, and save what `backward` needs."""
    array, given, ragged = _arrays(x, batch_sizes, state)
    lengths, calls = None if ragged is None else ragged.lengths, packed.calls(True)
    y, final, saved, arguments = _done(calls.forward(array, given, lengths, None, None, None, True))
    if ragged is None and not packed.form.one_step:
        y = y.copy()  # what was saved has y, which the caller may change
    return _tensors(packed, y, final, ragged), Saved(calls, arguments, saved, ragged)


def backward(
    packed: Packed, saved: Saved, gradients: Sequence[torch.Tensor | None], with_x: bool = True
) -> tuple[Any, ...]:
    """Return the gradients of x (None without `with_x`), of each part of the state and each weight.

    `gradients` are those of what `train` returned; None stands for zeros. `saved` is used up.
    """
    ragged, dy = saved.ragged, None
    if not packed.form.one_step:
        of_y, *gradients = gradients
        dy = None if of_y is None else _array(of_y)
        if ragged is not None and dy is not None:
            dy = ragged.steps(dy)
    dstate = _dstate(packed, gradients)
    call = *saved.arguments, None, saved.saved, dy, dstate
    dx, dfirst, of_cells = _done(saved.calls.backward(*call, with_x))
    if with_x:
        dx = torch.from_numpy(dx if ragged is None else ragged.data(dx))
    return dx, *map(torch.from_numpy, (*parts_of(dfirst), *chain(*of_cells)))


def _dstate(packed: Packed, gradients: Sequence[torch.Tensor | None]) -> Any:
    """The gradient of the final state, in the form of the kernels."""
    parts = [None if gradient is None else _array(gradient) for gradient in gradients]
    given = next((part for part in parts if part is not None), None)
    if given is None or len(parts) == 1:
        return given
    sizes = packed.form.P, packed.form.H
    return tuple(
        np.zeros((*given.shape[:-1], size), given.dtype) if part is None else part
        for part, size in zip(parts, sizes, strict=True)
    )


def _arrays(x: torch.Tensor, batch_sizes: torch.Tensor | None, state: Tensors) -> Any:
    array, ragged = _array(x), None
    if batch_sizes is not None:
        ragged = Ragged(batch_sizes)
        array = ragged.steps(array)
    parts = [_array(part) for part in state]
    return array, form_of(parts) if parts else None, ragged


def _array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array that the kernels can read; a view where possible."""
    return ready(tensor.detach().numpy())


def _tensors(
    packed: Packed, y: np.ndarray, final: Any, ragged: Ragged | None
) -> tuple[torch.Tensor, ...]:
    parts = parts_of(final)
    if packed.form.one_step:
        return tuple(map(torch.from_numpy, parts))
    if ragged is not None:
        y = ragged.data(y)
    return tuple(map(torch.from_numpy, (y, *parts)))


def _done(result: Any) -> Any:
    if result is NotImplemented:  # the layers check shapes before
        raise RuntimeError("fastlstm: the kernels did not take these arguments")
    return result
