"""A model's result as a function of x with a gradient, as inference computes it."""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import read_floats, read_index, read_integers
from fastlstm.engine.cell import Cell
from fastlstm.engine.one_step import OneStep
from fastlstm.engine.reading.mask import read_lengths, within
from fastlstm.engine.stack import Stack
from fastlstm.inspection.calls.by_step import step_by_step
from fastlstm.inspection.calls.copies import Same
from fastlstm.layers import lstm_options
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module, Output


def without_draws(model: Module, *others: Module) -> Module:
    """Return a copy of the model whose `forward` computes what a call computes.

    It has the model's parameters. There is no dropout; zoneout is the expected value. A module of
    one's own that draws numbers still draws them. If nothing is drawn, this is the model itself.

    Parameters
    ----------
    model : Module
    *others : Module
        Modules in it to leave out: they return x as it is.

    Raises
    ------
    ValueError
        A cell that is not of this library draws numbers.
    """
    twins: dict[int, Module] = {id(module): Same() for module in others}
    for _, module in model._parts():
        if isinstance(module, Dropout):
            twins[id(module)] = Same()
        elif isinstance(module, Stack) and module._draws:
            twins[id(module)] = _layer_without_draws(module)
    return model._bound_copy(twins, bind=False) if twins else model


def _layer_without_draws(layer: Stack) -> Stack:
    cells = [[_without_draws(cell) for cell in cells] for cells in layer.cells.by_layer]
    if any(cell.draws for cell in chain(*cells)):
        return step_by_step(layer)  # training has no expected value of zoneout
    return Stack(
        cells,
        reverse=layer.cells.reverse,
        batch_first=layer.batch_first,
        learn_initial_state=layer.learn_initial_state,
        dtype=layer.dtype,
        parameters=layer._parameters,
    )


def _without_draws(cell: Any) -> Cell:
    """The cell without recurrent dropout."""
    if not cell.draws:
        checked: Cell = cell
        return checked
    if not isinstance(cell, lstm_options.Cell):
        raise ValueError(
            f"model: expected cells whose inference has gradients, got {type(cell).__name__}, "
            "which draws random numbers"
        )
    return cell._replace(variant=cell.variant._replace(recurrent_dropout=0.0))


class Batch(NamedTuple):
    """The axes of x and of the outputs: those of steps and rows, and each row's steps."""

    has_rows: bool
    batch_first: bool
    lengths: np.ndarray  # [B]

    def by_row(self, array: np.ndarray) -> np.ndarray:
        """A view [B, T, ...]."""
        if not self.has_rows:
            return array[None]
        return array if self.batch_first else array.swapaxes(0, 1)

    def back_in_time(self, array: np.ndarray) -> np.ndarray:
        """[B, T, ...], each row from its last step to its first, and zeros after these."""
        rows = self.by_row(array)
        at = self.lengths[:, None] - 1 - np.arange(rows.shape[1])
        backward = rows[np.arange(len(rows))[:, None], at]
        backward[at < 0] = 0
        return np.asarray(backward)

    def last(self, y: np.ndarray, has_steps: bool) -> tuple[np.ndarray, np.ndarray]:
        """A view [n, ...] of the outputs, by step and row, and where the last ones are.

        Without steps, each row's output is its last.
        """
        if not has_steps:
            rows = y if self.has_rows else y[None]
            return rows, np.ones(len(rows), bool)
        rows = self.by_row(y)
        return rows, np.arange(rows.shape[1]) == self.lengths[:, None] - 1


class Inference:
    """A model's result as a function of x, and the gradient of a number that is made of it.

    Parameters
    ----------
    model : Module
        For a model that begins with an `Embedding`, x stands for the embedded vectors.
    x : array
        The input: of its shape are the arrays that calls take.
    state, lengths
        As in a call of the model.

    Attributes
    ----------
    x : array
        The input in floating point; the embedded vectors if it was of indices.
    batch : Batch
    """

    def __init__(self, model: Any, x: Any, state: Any = None, lengths: Any = None):
        if not isinstance(model, Module) or isinstance(model, OneStep):
            raise TypeError(f"model: expected a layer or a model of layers, got {model!r}")
        if isinstance(x, (list, tuple)):
            raise TypeError(
                f"x: expected an array, got a {type(x).__name__}; give a ragged batch as an array "
                "with lengths"
            )
        first = next(model._leaves(), None) if isinstance(model, Sequential) else model
        self.embedding = first if isinstance(first, Embedding) else None
        self.model: Any = without_draws(
            model, *([] if self.embedding is None else [self.embedding])
        )
        axes = np.ndim(x) + (self.embedding is not None)
        if axes not in (2, 3):
            raise ValueError(
                "x: expected axes of steps, rows and features (none of features for indices), or "
                f"of one row without the axis of rows, got shape {np.shape(x)}"
            )
        batch_first = bool(model._output(Output()).batch_first)
        steps = int(axes == 3 and batch_first)
        T, B = np.shape(x)[steps], np.shape(x)[1 - steps] if axes == 3 else 1
        counts = np.full(B, T) if lengths is None else read_lengths("lengths", lengths, T, B)
        self.batch = Batch(axes == 3, batch_first, counts)
        self.x = self.read(x)
        self.options: dict[str, Any] = {}
        if state is not None:
            self.options["state"] = state
        if lengths is not None:
            self.options["lengths"] = counts

    def read(self, x: Any, name: str = "x") -> np.ndarray:
        """x in floating point, embedded if it has indices."""
        if self.embedding is None:
            return read_floats(name, x)
        indices = read_integers(name, x).copy()
        rows = self.batch.by_row(indices)
        rows[~within(self.batch.lengths, rows.shape[1])] = 0  # padding may hold any number
        return self.embedding(indices)

    def __call__(self, x: np.ndarray, **others: Any) -> Any:
        """The result without the state; `others` in place of options that were given first."""
        result = self.model(x, **(self.options | others))
        return result[0] if self.model.is_recurrent else result

    def gradient(self, x: np.ndarray, target: Any) -> tuple[float, np.ndarray]:
        """A target's value and its gradient by x."""
        result, tape = self.model.forward(x, **self.options)
        value, dy = self.score(result[0] if self.model.is_recurrent else result, target)
        gradients = self.model.backward(tape, dy)
        if gradients.x is None:
            raise ValueError("model: expected a backward that returns the gradient of x, got None")
        return value, gradients.x

    def score(self, y: Any, target: Any) -> tuple[float, Any]:
        """The number that `target` makes of a result, and its gradient by the result."""
        if callable(target):
            pair = target(y)
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError(
                    f"target: expected a function that returns (number, dy), got {pair!r}"
                )
            return float(pair[0]), pair[1]
        dy = np.zeros(y.shape, y.dtype)
        rows, is_last = self.last(dy)
        units: Any = slice(None)
        if target is not None:
            units = read_index("target", target, rows.shape[-1])
        chosen = np.zeros(rows.shape[-1], y.dtype)
        chosen[units] = 1
        rows[is_last] = chosen
        return float(np.sum(y * dy, dtype=np.float64)), dy

    def last(self, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """As `Batch.last`."""
        if not isinstance(y, np.ndarray) or self.x.ndim - y.ndim not in (0, 1):
            raise TypeError(
                "target: expected a function of the result, which is not an array (steps, rows, "
                f"units) or (rows, units), got {type(y).__name__}"
            )
        return self.batch.last(y, y.ndim == self.x.ndim)
