"""A model as a trainer calls it: sequences first, whatever the model's own layout."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.checks import read_size, takes
from fastlstm.draws import Draws, drawing
from fastlstm.module import Gradients, Module
from fastlstm.training.data.batch import Batch
from fastlstm.training.data.sequences import Sequences


class Caller:
    """Calls of one model, with the options `threads` and `recompute` of its recurrent layers."""

    def __init__(self, model: Module, threads: Any = None, recompute: Any = None):
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a Module, got {type(model).__name__}")
        self.model: Any = model
        layouts = {getattr(module, "batch_first", None) for module in _modules(model)} - {None}
        if len(layouts) > 1:
            raise ValueError("model: expected one batch_first in all layers, got True and False")
        pools = getattr(model, "pools_steps", False)
        self.batch_first = layouts == {True} if layouts else not pools
        threads = None if threads is None else read_size("threads", threads)
        self._threads: dict[str, Any] = {}
        if threads is not None and model.is_recurrent:
            if not (takes(model.forward, "threads") and takes(model.backward, "threads")):
                raise ValueError("threads: the model's forward and backward take none")
            self._threads = {"threads": threads}
        self._backward = dict(self._threads)  # options of `backward`
        if takes(model.backward, "with_x"):
            self._backward["with_x"] = False
        self._recompute: dict[str, Any] = {}
        if recompute is not None:
            if not (model.is_recurrent and takes(model.forward, "recompute")):
                raise ValueError("recompute: the model's forward takes none")
            self._recompute = {"recompute": recompute}
        self._takes_lengths = takes(model.forward, "lengths") and (model.is_recurrent or pools)

    def check(self, source: Any) -> None:
        """Raise ValueError if sequences have other features than the model's first layer reads."""
        first: Any = self.model
        while "0" in first._children:
            first = first._children["0"]
        size = getattr(first, "input_size", None) if first.is_recurrent else None
        if size is None or not isinstance(source, Sequences):
            return
        expected: tuple[Any, ...] = ("T", size)
        name, x = "x", source.x
        if isinstance(x, list):
            name, x = "x[0]", x[0]
        else:
            expected = ("N", *expected)
        if x.ndim != len(expected) or x.shape[-1] != size:
            shape = ", ".join(map(str, expected))
            raise ValueError(f"{name}: expected shape ({shape}), sequences first, got {x.shape}")

    def predict(self, source: Sequences, batch_size: int) -> Any:
        """Return the predictions for all sequences, in their order: see `Trainer.predict`."""
        is_list = isinstance(source.x, list)
        T = source.x.shape[1] if isinstance(source.x, np.ndarray) else 0
        by_row: list[np.ndarray] = [np.empty(0)] * source.size
        result: Any = None
        for rows in source.rows(batch_size, None):
            batch = source.take(rows)
            pred, _ = self.infer(batch)
            if not has_steps(pred, batch) or not is_list:
                steps = (T,) if has_steps(pred, batch) else ()
                if result is None:
                    rest = pred.shape[2:] if steps else pred.shape[1:]
                    result = np.zeros((source.size, *steps, *rest), pred.dtype)
                target = result[:, : pred.shape[1]] if steps else result
                target[rows] = pred
                continue
            for row, one in zip(rows, pred, strict=True):
                by_row[row] = one[: source.lengths[row]].copy()
        return by_row if result is None else result

    def infer(self, batch: Batch, state: Any = None) -> tuple[np.ndarray, Any]:
        """Return the predictions, (B, T, ...) or (B, ...), and the final state."""
        x, options = self._arguments(batch, state)
        result = self.model(x, **options)
        pred, state = result if self.model.is_recurrent else (result, None)
        return self._rows_first(pred, batch), state

    def forward(
        self, batch: Batch, state: Any, seed: int, step: int
    ) -> tuple[np.ndarray, Any, tuple[Any, bool]]:
        """Return the predictions and the state as in training, and a tape."""
        x, options = self._arguments(batch, state)
        with drawing(Draws(seed, step, self.batch_first, batch.first_row)):
            result, tape = self.model.forward(x, **options, **self._recompute)
        pred, state = result if self.model.is_recurrent else (result, None)
        rows_first = self._rows_first(pred, batch)
        return rows_first, state, (tape, rows_first is not pred)

    def backward(self, tape: tuple[Any, bool], dpred: np.ndarray) -> Gradients:
        """Return the gradients, from that of the predictions."""
        own, is_turned = tape
        dpred = dpred.swapaxes(0, 1) if is_turned else dpred
        grads: Gradients = self.model.backward(own, dpred, **self._backward)
        return grads

    def _arguments(self, batch: Batch, state: Any) -> tuple[np.ndarray, dict[str, Any]]:
        options = dict(self._threads)
        if state is not None:
            options["state"] = state
        if self._takes_lengths:
            if batch.lengths is not None:
                options["lengths"] = batch.lengths
            for name in ("mask", "resets"):
                array = getattr(batch, name)
                if array is not None:
                    options[name] = array if self.batch_first else array.T
        x = batch.x if self.batch_first else batch.x.swapaxes(0, 1)
        return x, options

    def _rows_first(self, pred: Any, batch: Batch) -> np.ndarray:
        """Predictions with the axis of rows before that of steps, if they have one."""
        array: np.ndarray = np.asarray(pred)
        rows, steps = batch.x.shape[:2]
        if not self.batch_first and array.ndim > 2 and array.shape[:2] == (steps, rows):
            array = array.swapaxes(0, 1)
        return array


def has_steps(pred: np.ndarray, batch: Batch) -> bool:
    """Whether predictions, rows first, are of every step."""
    return pred.ndim > 2 and pred.shape[:2] == batch.x.shape[:2]


def _modules(model: Module) -> Iterator[Any]:
    yield model
    for child in model._children.values():
        yield from _modules(child)
