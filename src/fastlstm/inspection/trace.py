"""Gates, cells and hidden states of every step, as inference had them."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import missing
from fastlstm.engine.reading.mask import Kept
from fastlstm.inspection.calls.steps import Seen
from fastlstm.inspection.calls.watch import Watch

# The names of the gates that the kernels save, in their order.
GATES = {
    "LSTM": ("input_gate", "forget_gate", "candidate", "output_gate"),
    "GRU": ("reset_gate", "update_gate", "candidate"),
}
ALIASES = {"save": "input_gate", "remember": "forget_gate", "focus": "output_gate"}


@dataclass(frozen=True, eq=False, repr=False)
class LayerTrace:
    """What one layer and direction computed. Its arrays are also its attributes.

    All arrays are (T, B, units), in the order of time also for the reverse direction, and zero
    after a row's end and at masked steps.

    ====  =========================================================================
    LSTM  `input_gate`, `forget_gate`, `candidate`, `output_gate`, `cell`, `hidden`
    GRU   `reset_gate`, `update_gate`, `candidate`, `hidden`
    RNN   `hidden`
    ====  =========================================================================

    Gates and candidate are after their activations. `cell` and `hidden` are the state after the
    step; `hidden` is the output of the layer, with `proj_size` the projected one. With coupled
    gates, `input_gate` is 1 - `forget_gate`. `save`, `remember` and `focus` are other names of
    `input_gate`, `forget_gate` and `output_gate`.

    Attributes
    ----------
    name : str
        "l0", "l0_reverse", "l1", …; within a model after the name of the layer: "1.l0".
    kind : "LSTM", "GRU" or "RNN"
        For a cell of one's own, the name of its class of layers.
    arrays : dict of str to array
        The arrays by name.
    """

    name: str
    kind: str
    arrays: dict[str, np.ndarray]

    def __getattr__(self, name: str) -> np.ndarray:
        arrays: dict[str, np.ndarray] = self.__dict__.get("arrays", {})
        array = arrays.get(ALIASES.get(name, name))
        if array is None:
            raise AttributeError(
                f"{name}: expected one of {', '.join(arrays)}, which a layer of kind "
                f"{self.__dict__.get('kind')} has"
            )
        return array

    def __dir__(self) -> list[str]:
        aliases = (alias for alias, name in ALIASES.items() if name in self.arrays)
        return sorted({*super().__dir__(), *self.arrays, *aliases})

    def __repr__(self) -> str:
        T, B = self.hidden.shape[:2]
        return f"<{self.kind} {self.name}, {T} steps of {B} rows: {', '.join(self.arrays)}>"


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """What the recurrent layers of a model computed in one call; `trace` returns it.

    Attributes
    ----------
    layers : tuple of LayerTrace
        Each layer and direction, in torch's order.
    x : array (T, B, features)
        The input of the first recurrent layer; zero after a row's end and at masked steps.
    lengths : array (B,) of ints, or None
        The number of steps of each row; None if they are the same, or steps were masked.
    y : array
        The output of the model, with the axis of time first, if it has one: see `trace`.
    mask : bool array (T, B), or None
        False at the steps that were skipped, where the other arrays are zero; None without a mask.
    """

    layers: tuple[LayerTrace, ...]
    x: np.ndarray
    lengths: np.ndarray | None
    y: Any
    mask: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Trace({', '.join(map(repr, self.layers))})"

    def to_npz(self, path: str | os.PathLike[str]) -> None:
        """Save all arrays in NumPy's format: "l0.input_gate", …, "x", "y", "lengths" and "mask".

        Parameters
        ----------
        path : str or path
            NumPy appends ".npz" if it is missing.
        """
        arrays = {f"{layer.name}.{k}": v for layer in self.layers for k, v in layer.arrays.items()}
        others = {"x": self.x, "y": self.y, "lengths": self.lengths, "mask": self.mask}
        arrays |= {name: v for name, v in others.items() if isinstance(v, np.ndarray)}
        np.savez(path, **arrays)  # type: ignore[arg-type]

    def to_xarray(self) -> Any:
        """Return an xarray Dataset of the variables "l0.input_gate", …, "x", "lengths" and "mask".

        Returns
        -------
        dataset : xarray.Dataset
            Dimensions time, batch and unit. A variable whose size differs from that of the first
            has the dimension "unit_5" for 5 units; that of x is "feature".

        Raises
        ------
        ImportError
            xarray is not installed: ``pip install xarray``.
        """
        try:
            import xarray
        except ImportError as error:
            raise missing("to_xarray", "xarray") from error
        variables: dict[str, Any] = {"x": (("time", "batch", "feature"), self.x)}
        if self.lengths is not None:
            variables["lengths"] = (("batch",), self.lengths)
        if self.mask is not None:
            variables["mask"] = (("time", "batch"), self.mask)
        usual = next(iter(self.layers[0].arrays.values())).shape[-1]
        for layer in self.layers:
            for name, array in layer.arrays.items():
                size = array.shape[-1]
                unit = "unit" if size == usual else f"unit_{size}"
                about = {"layer": layer.name, "kind": layer.kind}
                variables[f"{layer.name}.{name}"] = (("time", "batch", unit), array, about)
        return xarray.Dataset(variables)

    def plot(
        self,
        layer: int = -1,
        row: int = 0,
        unit: int | None = None,
        order: Any = "activity",
        ax: Any = None,
    ) -> Any:
        """Draw the input, the state and the gates over time, of one row.

        Parameters
        ----------
        layer, row, unit, order, ax
            Those of `inspection.pictures.trace`: which layer, row and unit (all units, as heat
            maps, if None), the order of the heat maps' units, and where to draw.

        Returns
        -------
        axes : array of matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed: ``pip install "fastlstm[plot]"``.
        """
        from fastlstm.inspection import pictures

        return pictures.trace(self, layer, row, unit, order, ax)


def trace(
    model: Any, x: Any, state: Any = None, lengths: Any = None, resets: Any = None, mask: Any = None
) -> Trace:
    """Call a model as inference, and return what its recurrent layers computed at every step.

    The arrays are those of the call itself: `hidden` has the bits of inference. They are views of
    what the kernels save for training, so a trace takes little longer than a call, and the memory
    of a training step. A layer with zoneout or recurrent dropout, whose training is another
    computation, is computed step by step instead, which takes longer.

    Parameters
    ----------
    model : layer, or model with recurrent layers in it
        An `LSTM`, `GRU` or `RNN`, or one of their cells; a `Sequential`; a `Module` of one's own
        that calls each of its recurrent layers once.
    x, state, lengths, resets, mask
        As the model takes them. A cell takes one step.

    Returns
    -------
    Trace
        Its `y` is the model's output (of a cell, the next h), as the model returns it, but with
        the axes of time and batch in this order. For a list of sequences, a padded batch.

    Raises
    ------
    ValueError, TypeError
        As the model raises them; or no recurrent layer was called, or one of them twice.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> model = fl.Sequential(fl.Embedding(9, 4, rng=0), fl.LSTM(4, 5, bidirectional=True, rng=0))
    >>> trace = fl.inspection.trace(model, [[1, 2, 8], [3]])
    >>> trace
    Trace(<LSTM 1.l0, 3 steps of 2 rows: input_gate, forget_gate, candidate, output_gate, cell, \
hidden>, <LSTM 1.l0_reverse, 3 steps of 2 rows: input_gate, forget_gate, candidate, output_gate, \
cell, hidden>)
    >>> forward = trace.layers[0]
    >>> i, f, g = forward.save, forward.remember, forward.candidate
    >>> c = forward.cell
    >>> bool(np.allclose(c[1:, 0], f[1:, 0] * c[:-1, 0] + i[1:, 0] * g[1:, 0]))
    True
    >>> trace.lengths, forward.cell[1:, 1].any()  # nothing after a row's end
    (array([3, 1]), np.False_)
    """
    with Watch(model) as watch:
        x, options, given = watch.read(x, lengths, resets, mask)
        y = watch.output(watch.model(x, *(() if state is None else (state,)), **options))
        first = watch.calls[0]
        kept = None if given is None else given.kept
        if watch.has_steps(y):
            y = first.in_time(y if kept is None else kept.spread(y))
            y = y if first.call.x.ndim == 3 else y[:, 0]
        layers = tuple(
            _layer(seen, kept or call.kept) for call in watch.calls for seen in call.seen
        )
        kept = kept or first.kept
        lengths = first.call.lengths if kept is None else None
        mask = None if kept is None else np.array(kept.axes.rows(kept.mask).T)
        return Trace(layers, _spread(first.layers[0][0].x, kept), lengths, y, mask)


def _layer(seen: Seen, kept: Kept | None) -> LayerTrace:
    names = GATES.get(seen.kind, ())
    arrays = {name: seen.saved[0][:, :, gate] for gate, name in enumerate(names)}
    if "c" in seen.cell.state:
        arrays["cell"] = seen.states[seen.cell.state.index("c")]
    arrays["hidden"] = seen.states[0]
    return LayerTrace(seen.name, seen.kind, {k: _spread(a, kept) for k, a in arrays.items()})


def _spread(array: np.ndarray, kept: Kept | None) -> np.ndarray:
    """An array [T, B, ...] of the kept steps in their places, with zeros elsewhere."""
    if kept is None:
        return array
    axes = kept.axes
    return axes.rows(kept.spread(axes.of_rows(array.swapaxes(0, 1)))).swapaxes(0, 1)
