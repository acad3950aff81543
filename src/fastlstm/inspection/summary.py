"""A model as a table: its layers, their outputs, parameters and work."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.engine.stack import Stack
from fastlstm.layers.activation import Activation
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.linear import Linear
from fastlstm.layers.pool import Pool
from fastlstm.layers.sequential import Sequential
from fastlstm.layers.steps.backwards import Backwards
from fastlstm.layers.steps.merge import Merge
from fastlstm.module import Module, Output

Shape = tuple[int | str, ...]
WITHOUT_PRODUCTS = Embedding, Dropout, Pool, Activation, Merge, Backwards  # of matrices


@dataclass(frozen=True)
class SummaryRow:
    """One layer.

    Attributes
    ----------
    name : str
        As its parameters begin: "1" in a `Sequential`, "1.l0" for one of its recurrent layers.
    kind : str
        Name of the class; recurrent layers of two directions are "LSTM, both directions".
    shape : tuple of int and str, or None
        Of the output: "T" and "B" stand for axes that x would tell; None if it is not known.
    parameters, bytes : int
        How many numbers the parameters are, and their memory.
    multiply_adds : int or None
        Of the matrix products, for one step of one row (for one row after a `Pool`). None for a
        module that is not of this library.
    """

    name: str
    kind: str
    shape: Shape | None
    parameters: int
    multiply_adds: int | None
    bytes: int


@dataclass(frozen=True)
class Summary:
    """The layers of a model, and their totals.

    Attributes
    ----------
    rows : tuple of SummaryRow
    parameters, bytes : int
    multiply_adds : int or None
        None if those of a row are not known.
    """

    rows: tuple[SummaryRow, ...]

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def bytes(self) -> int:
        return sum(row.bytes for row in self.rows)

    @property
    def multiply_adds(self) -> int | None:
        total = 0
        for row in self.rows:
            if row.multiply_adds is None:
                return None
            total += row.multiply_adds
        return total

    def __str__(self) -> str:
        lines = [("layer", "kind", "output", "parameters", "multiply-adds a step", "bytes")]
        lines += [(row.name, row.kind, _text(row.shape), *_numbers(row)) for row in self.rows]
        lines.append(("total", "", "", *_numbers(self)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                text.rjust(width) if k > 2 else text.ljust(width)
                for k, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, texts))
        return "\n".join([texts[0], rule, *texts[1:-1], rule, texts[-1]])


def summary(model: Any, x: Any = None) -> Summary:
    """Return the layers of a model, with their output shapes, parameters, work and memory.

    Parameters
    ----------
    model : Module
    x : array or tuple of int, optional
        An input, or the shape of one. The layers are called with it, so that shapes are numbers,
        also those of modules of your own.

    Returns
    -------
    Summary
        `str` of it is a table.

    Raises
    ------
    TypeError
        `model` is no module.

    Examples
    --------
    >>> import fastlstm as fl
    >>> from fastlstm import inspection
    >>> model = fl.Sequential(fl.Embedding(9, 4), fl.LSTM(4, 5, num_layers=2), fl.Linear(5, 9))
    >>> print(inspection.summary(model))
    layer  kind       output     parameters  multiply-adds a step  bytes
    --------------------------------------------------------------------
    0      Embedding  (T, B, 4)          36                     0    144
    1.l0   LSTM       (T, B, 5)         220                   180    880
    1.l1   LSTM       (T, B, 5)         240                   200    960
    2      Linear     (T, B, 9)          54                    45    216
    --------------------------------------------------------------------
    total                               550                   425  2,200
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a layer or a model of layers, got {model!r}")
    if isinstance(x, tuple) and all(isinstance(size, (int, np.integer)) for size in x):
        x = np.zeros(x, np.intp if isinstance(_first(model), Embedding) else np.float32)
    before = Output(batch_first=model._output(Output()).batch_first)
    return Summary(tuple(_rows("", model, before, x)[0]))


def _first(model: Module) -> Module:
    return next(model._leaves(), model) if isinstance(model, Sequential) else model


def _rows(name: str, module: Any, before: Output, x: Any) -> tuple[list[SummaryRow], Any]:
    """The rows of a module, and its result for x, None if x is."""
    if isinstance(module, Sequential):
        rows = []
        for key, layer in zip(module._children, module, strict=True):
            layer = layer._after(before)
            own, x = _rows(f"{name}{key}.", layer, before, x)
            before = layer._output(before)
            rows += own
        return rows, x
    after = module._output(before)
    y = None
    if x is not None:
        y = module(x)
        y = y[0] if module.is_recurrent else y
    if isinstance(module, Stack):
        return list(_rows_of_stack(name, module, y)), y
    own_arrays = [array for key, array in module.parameters().items() if "." not in key]
    known = isinstance(module, (Linear, *WITHOUT_PRODUCTS))
    row = SummaryRow(
        name.removesuffix("."),
        type(module).__name__,
        _shape(after, y),
        sum(array.size for array in own_arrays),
        (module.weight.size if isinstance(module, Linear) else 0) if known else None,
        sum(array.nbytes for array in own_arrays),
    )
    rows = [row]
    for key, child in module._children.items():
        rows += _rows(f"{name}{key}.", child, Output(), None)[0]
    return rows, y


def _rows_of_stack(name: str, stack: Stack, y: Any) -> Iterator[SummaryRow]:
    arrays = stack.parameters()
    both = ", both directions" if len(stack.cells.reverse) > 1 else ""
    leading: Shape = ("B", "T") if stack.batch_first else ("T", "B")
    if stack.one_step:
        leading = ("B",)
    if y is not None:
        leading = y[0].shape[:-1] if isinstance(y, tuple) else y.shape[:-1]
    for layer, cells in enumerate(stack.cells.by_layer):
        suffixes = [stack.cells.suffix(layer, direction) for direction in range(len(cells))]
        own = [array for key, array in arrays.items() if key.endswith(tuple(suffixes))]
        products = [
            math.prod(shape) for cell in cells for shape in cell.shapes().values() if len(shape) > 1
        ]
        yield SummaryRow(
            (name + suffixes[0].removeprefix("_")).removesuffix("."),
            type(stack).__name__ + both,
            (*leading, len(cells) * cells[0].sizes[0]),
            sum(array.size for array in own),
            sum(products),
            sum(array.nbytes for array in own),
        )


def _shape(after: Output, y: Any) -> Shape | None:
    """The shape of a result, from the result itself or from what is known of it."""
    if y is not None:
        return getattr(y, "shape", None)
    if after.features is None:
        return None
    if after.pooled:
        return "B", after.features
    return (*(("B", "T") if after.batch_first else ("T", "B")), after.features)


def _text(shape: Shape | None) -> str:
    return "?" if shape is None else f"({', '.join(map(str, shape))})"


def _numbers(row: SummaryRow | Summary) -> tuple[str, str, str]:
    work = "?" if row.multiply_adds is None else f"{row.multiply_adds:,}"
    return f"{row.parameters:,}", work, f"{row.bytes:,}"
