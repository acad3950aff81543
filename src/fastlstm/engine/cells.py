"""The cells of a stack, by layer and direction: their parameters, and their prepared calls."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastlstm.checks import memory_for, quiet
from fastlstm.engine.cell import Cell
from fastlstm.engine.prepared import Chain, Whole, prepare
from fastlstm.engine.reading.state import StateLayout, form_of, parts_of
from fastlstm.kernels.arguments import Kernels
from fastlstm.module import Parameters


class Cells:
    """The cells of a stack.

    Parameters
    ----------
    by_layer : sequence of sequences of Cell
        For each layer, one cell for each direction.
    reverse : tuple of bool
        For each direction, whether it reads from the end.
    batch_first : bool
        Whether arrays are (B, T, features) instead of (T, B, features).
    one_step : bool
        Whether they are one cell for one step, whose parameters' names have no suffix.
    drops : bool
        Whether there is dropout between layers.

    Attributes
    ----------
    layout : StateLayout
        The form of the state.
    names : list of str
        The names of the cells' parameters, in the order of their gradients.
    """

    def __init__(
        self,
        by_layer: Sequence[Sequence[Cell]],
        reverse: tuple[bool, ...],
        *,
        batch_first: bool,
        one_step: bool,
        drops: bool,
    ):
        self.by_layer, self.reverse = [tuple(layer) for layer in by_layer], tuple(reverse)
        _check(self.by_layer, len(self.reverse))
        self._batch_first, self._one_step, self._drops = batch_first, one_step, drops
        first, last = self.by_layer[0][0], self.by_layer[-1][0]
        sizes = zip(*(layer[0].sizes for layer in self.by_layer), strict=True)
        self.layout = StateLayout(first.state, tuple(sizes), len(self.reverse))
        self.inputs, self.outputs = first.inputs, len(self.reverse) * last.sizes[0]
        self.draws = any(cell.draws for _, cell in self.named())
        self.names = [name + suffix for suffix, cell in self.named() for name in cell.shapes()]
        self._untrained = [
            name + suffix
            for suffix, cell in self.named()
            for name in getattr(cell, "untrained", ())
        ]

    def __repr__(self) -> str:
        return repr(self.by_layer)

    def suffix(self, layer: int, direction: int) -> str:
        """Return the end of the names of a cell's parameters."""
        return "" if self._one_step else f"_l{layer}{'_reverse' if direction else ''}"

    def named(self) -> Iterator[tuple[str, Cell]]:
        """Every cell with the end of its parameters' names, in their order."""
        for layer, cells in enumerate(self.by_layer):
            for direction, cell in enumerate(cells):
                yield self.suffix(layer, direction), cell

    # Parameters.

    def initial(
        self, rng: "np.random.Generator", dtype: np.dtype, with_state: bool
    ) -> dict[str, np.ndarray]:
        """Return the initial value of every parameter, in torch's order.

        With `with_state`, also of the learned initial state.
        """
        arrays: dict[str, np.ndarray] = {}
        for suffix, cell in self.named():
            with memory_for("parameters", *cell.shapes().values()):
                own = cell.initial(rng)
            for name in getattr(cell, "untrained", ()):
                own[name] = np.zeros_like(own[name])
            if with_state:
                for part, size in zip(cell.state, cell.sizes, strict=True):
                    own[f"initial_{part}"] = np.zeros(size)
            for name, array in own.items():
                # A view stays one, which has no memory of its own; `Parameters` copies others.
                is_view = array.base is not None
                arrays[name + suffix] = array.astype(dtype, copy=not is_view)
        return arrays

    def learned_state(self, parameters: Parameters, batch: tuple[int, ...]) -> Any:
        """Return the learned initial state of (B,) rows, or of one row without an axis, ()."""
        by_layer = []
        for layer in range(len(self.by_layer)):
            suffixes = [self.suffix(layer, direction) for direction in range(len(self.reverse))]
            parts = []
            for name in self.layout.names:
                rows = [parameters[f"initial_{name}{suffix}"] for suffix in suffixes]
                parts.append(np.stack([np.tile(row, (*batch, 1)) for row in rows]))
            by_layer.append(form_of(parts))
        return self.layout.joined(by_layer)

    # Gradients.

    def by_name(self, gradients: Any) -> dict[str, np.ndarray]:
        """Return the gradients of all cells' parameters by name."""
        arrays = gradients[0] if len(gradients) == 1 else list(chain(*gradients))
        if len(arrays) != len(self.names):
            raise ValueError(f"cells: expected gradients of {self.names}, got {len(arrays)} arrays")
        params = dict(zip(self.names, arrays))  # noqa: B905 (strict takes half a microsecond)
        for name in self._untrained:
            params[name] = np.zeros_like(params[name])
        return params

    def of_learned_state(self, dfirst: Any, was_used: bool) -> dict[str, np.ndarray]:
        """Return the gradients of the learned state; zeros if the call was given a state."""
        gradients = {}
        for place, (suffix, _) in enumerate(self.named()):
            layer, direction = divmod(place, len(self.reverse))
            parts = parts_of(self.layout.of_layer(dfirst, layer))
            for name, part in zip(self.layout.names, parts, strict=True):
                own = part[direction]
                rows = own.reshape(-1, own.shape[-1])
                with quiet():
                    total = rows.sum(axis=0, dtype=np.float64).astype(own.dtype)
                gradients[f"initial_{name}{suffix}"] = total if was_used else np.zeros_like(total)
        return gradients

    # Calls.

    def prepared(
        self, k: Kernels, parameters: Parameters, threads: int, training: bool = False
    ) -> Whole | Chain:
        """Return the calls with these parameters; prepared once."""
        try:
            prepared: Whole | Chain = parameters.derived[k, threads, training]
        except KeyError:
            prepared = parameters.derive(
                (k, threads, training),
                lambda: self._prepare(k, parameters, threads, training, prepare),
            )
        return prepared

    def prepared_by(
        self, prepare: Callable[..., Any], k: Kernels, parameters: Parameters, threads: int
    ) -> Any:
        """As `prepared` for training, by another function than `prepare`."""
        return parameters.derive(
            (k, threads, prepare), lambda: self._prepare(k, parameters, threads, True, prepare)
        )

    def _prepare(
        self,
        k: Kernels,
        parameters: Parameters,
        threads: int,
        training: bool,
        prepare: Callable[..., Any],
    ) -> Any:
        packed = [
            [
                self._packed(k, parameters, self.suffix(layer, direction), cell, training)
                for direction, cell in enumerate(cells)
            ]
            for layer, cells in enumerate(self.by_layer)
        ]
        prepared = prepare(
            k,
            packed,
            self.reverse,
            self.layout,
            batch_first=self._batch_first,
            one_step=self._one_step,
            by_layer=not self.layout.is_even or (training and self._drops),
            threads=threads,
        )
        if prepared is None:  # a cell is in Python
            from fastlstm.kernels import reference

            prepared = self._prepare(reference, parameters, threads, training, prepare)
        return prepared

    def _packed(
        self, k: Kernels, parameters: Parameters, suffix: str, cell: Cell, training: bool
    ) -> Any:
        """A cell's parameters in the form of build `k`.

        Inference also takes parameters that are packed for training, if there are any.
        """
        both_ways = parameters.derived.get((k, suffix, True))
        if both_ways is not None:
            return both_ways
        own = {name: parameters[name + suffix] for name in cell.shapes()}
        packed = parameters.derive((k, suffix, training), lambda: cell.pack(k, own, training))
        names = tuple(getattr(packed, "names", own))  # a cell in Python has `names`, too
        if names != tuple(own):
            raise ValueError(
                f"names: expected those of the cell's shapes, {tuple(own)}, got {names}"
            )
        return packed


def _check(by_layer: Sequence[Sequence[Cell]], directions: int) -> None:
    """Raise unless the inputs of every layer fit the outputs of the layer before."""
    if not by_layer:
        raise ValueError("cells: expected at least one layer, got none")
    for k, layer in enumerate(by_layer):
        if len(layer) != directions:
            raise ValueError(f"cells[{k}]: expected {directions} directions, got {len(layer)}")
        inputs = directions * by_layer[k - 1][0].sizes[0] if k else layer[0].inputs
        expected = inputs, by_layer[0][0].state, layer[0].sizes
        for cell in layer:
            got = cell.inputs, cell.state, cell.sizes
            if got != expected:
                raise ValueError(
                    f"cells[{k}]: expected inputs, state and sizes {expected}, got {got}"
                )
