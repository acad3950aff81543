"""Gradients over time: how far a loss reaches back through every layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from fastlstm.checks import quiet, read_index
from fastlstm.engine.one_step import OneStep
from fastlstm.inspection.calls.by_step import LayerCall
from fastlstm.inspection.calls.watch import Watch
from fastlstm.inspection.carousel import carousel_of, total_of_cell


@dataclass(frozen=True, eq=False)
class LayerFlow:
    """The gradients of one layer and direction at every step.

    Attributes
    ----------
    name, kind : str
        As those of `LayerTrace`.
    hidden : array (T,)
        The Euclidean norm, over rows and units, of dL/dh_t.
    cell : array (T,), or None
        The same of dL/dc_t, for an LSTM.
    carousel : array (T,), or None
        For each step t, the mean over units, and over the rows that have step t, of the product of
        the forget gates of all later steps up to the row's end: the share of c_t that is still in
        the last cell (Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000). In the
        reverse direction, of all earlier steps. Zero across a reset. With zoneout of c, the factor
        of a step is m + (1 - m) f. For a GRU, whose carousel is h, of the update gates. None for an
        RNN.
    half_life : float, or None
        The number of steps in which the carousel falls to half: log(1/2) / log(f), f being the
        geometric mean of these gates over rows, steps and units; infinite if f is 1 or more.
    """

    name: str
    kind: str
    hidden: np.ndarray
    cell: np.ndarray | None
    carousel: np.ndarray | None
    half_life: float | None


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """How far the gradient of a loss L reaches back in time; `gradient_flow` returns it.

    Attributes
    ----------
    layers : tuple of LayerFlow
        Each layer and direction, in torch's order.
    input : array (T,)
        The Euclidean norm, over rows and features, of dL/dx_t, x being the input of the first
        recurrent layer.
    hidden, cell, carousel, half_life
        Those of the last layer, in its first direction.
    """

    layers: tuple[LayerFlow, ...]
    input: np.ndarray
    _last: LayerFlow

    @property
    def hidden(self) -> np.ndarray:
        """The norms of dL/dh_t, (T,), of the last layer."""
        return self._last.hidden

    @property
    def cell(self) -> np.ndarray | None:
        """The norms of dL/dc_t, (T,), of the last layer; None without a cell state."""
        return self._last.cell

    @property
    def carousel(self) -> np.ndarray | None:
        """The carousel's factors, (T,), of the last layer; None for an RNN."""
        return self._last.carousel

    @property
    def half_life(self) -> float | None:
        """The steps in which the last layer's carousel falls to half; None for an RNN."""
        return self._last.half_life

    def plot(self, ax: Any = None) -> Any:
        """Draw the norms over time, on a logarithmic scale: see `inspection.pictures.flow`.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        ax : matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed: ``pip install "fastlstm[plot]"``.
        """
        from fastlstm.inspection import pictures

        return pictures.flow(self, ax)


@dataclass(frozen=True, eq=False)
class FlowComparison:
    """The gradient flows of several models over the same x; `compare_flow` returns it.

    Attributes
    ----------
    flows : dict of str to GradientFlow
    """

    flows: dict[str, GradientFlow]

    def plot(self, ax: Any = None) -> Any:
        """Draw the models side by side: see `inspection.pictures.flows`.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        ax : matplotlib Axes

        Raises
        ------
        ImportError
            matplotlib is not installed: ``pip install "fastlstm[plot]"``.
        """
        from fastlstm.inspection import pictures

        return pictures.flows(self, ax)


def gradient_flow(
    model: Any,
    x: Any,
    *,
    loss_at: int = -1,
    dy: Any = None,
    state: Any = None,
    lengths: Any = None,
    resets: Any = None,
) -> GradientFlow:
    """Return the size of a loss's gradient at every step of every recurrent layer.

    The loss L is the sum of the model's outputs at one step. dL/dh_t and dL/dc_t are total
    derivatives, as torch's `retain_grad` gives them for a loop over an `LSTMCell`: that of c_t
    includes the way through h_t of the same step. The model computes as in inference, without
    dropout; zoneout is the mean that inference computes.

    Parameters
    ----------
    model : layer, or model with recurrent layers in it
        As for `trace`; modules that are not recurrent are differentiated by their `backward`.
    x, state, lengths, resets
        As the model takes them.
    loss_at : int
        The step of the loss. A negative one counts from the end, with `lengths` or a list from
        each row's own end. Rows without this step add nothing. If the output has no steps, as
        after a `Last`, L is the sum of the whole output.
    dy : array, or list of arrays if x is a list, optional
        The gradient dL/dy of the model's output, of any loss, in place of `loss_at`.

    Returns
    -------
    GradientFlow

    Raises
    ------
    ValueError, TypeError
        As `forward` and `backward` of the model raise them; or `loss_at` is no step of x, no
        recurrent layer was called, or one of them twice.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> x = np.random.default_rng(0).standard_normal((100, 4, 8))
    >>> lstm = fl.LSTM(8, 16, forget_bias=3, rng=0, dtype=np.float64)
    >>> flow = fl.inspection.gradient_flow(lstm, x)
    >>> bool(flow.cell[0] > 1e-3 * flow.cell[-1])
    True
    >>> flow = fl.inspection.gradient_flow(fl.RNN(8, 16, rng=0, dtype=np.float64), x)
    >>> bool(flow.hidden[0] < 1e-12 * flow.hidden[-1])
    True
    """
    if isinstance(model, OneStep):
        name = type(model).__name__
        raise ValueError(
            f"model: expected a layer over sequences, got {name}, which takes one step"
        )
    with Watch(model) as watch:
        x, options, given = watch.read(x, lengths, resets)
        args = () if state is None else (state,)
        result, tape = watch.model.forward(x, *args, **options)
        y = watch.output(result)
        if dy is None:
            dy = _of_sum(watch, y, loss_at)
        elif loss_at != -1:
            raise ValueError(f"loss_at: dy says what the loss is, so expected -1, got {loss_at}")
        elif given is not None and watch.has_steps(y):
            dy = given.read_gradient(dy, y.shape[2:])
        watch.model.backward(tape, dy)
        by_call = [_layers(call) for call in watch.calls]
        last = by_call[-1][-len(watch.calls[-1].layers[-1])]
        layers = tuple(layer for layers in by_call for layer in layers)
        return GradientFlow(layers, _norms(watch.calls[0].dx), last)


def compare_flow(models: Mapping[str, Any], x: Any, **options: Any) -> FlowComparison:
    """Return the `gradient_flow` of several models over the same x.

    Parameters
    ----------
    models : mapping of str to model
        The models by the names that they have in a picture.
    x
        As the models take it.
    **options
        Further arguments of `gradient_flow`, for all models.

    Returns
    -------
    FlowComparison

    Raises
    ------
    ValueError, TypeError
        As `gradient_flow` raises them; or `models` is no mapping.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> x = np.random.default_rng(0).standard_normal((50, 4, 8))
    >>> models = {"RNN": fl.RNN(8, 16, rng=0), "LSTM": fl.LSTM(8, 16, forget_bias=3, rng=0)}
    >>> flows = fl.inspection.compare_flow(models, x).flows
    >>> bool(flows["LSTM"].hidden[0] > 1e3 * flows["RNN"].hidden[0])
    True
    """
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models: expected a mapping of names to models, got {models!r}")
    return FlowComparison({name: gradient_flow(m, x, **options) for name, m in models.items()})


def _of_sum(watch: Watch, y: Any, loss_at: Any) -> np.ndarray:
    """The gradient of the sum of the output y at one step."""
    if not isinstance(y, np.ndarray):
        kind = type(y).__name__
        raise TypeError(f"dy: the model returns a {kind}, so expected the gradient of it, got None")
    if not watch.has_steps(y):
        if loss_at != -1:
            raise ValueError(f"loss_at: the output has no steps, so expected -1, got {loss_at!r}")
        return np.ones_like(y)
    call = watch.calls[0]
    if call.kept is not None:
        raise ValueError("dy: the model masks steps of its own, so expected a gradient, got None")
    T = len(call.live)
    read_index("loss_at", loss_at, T)
    ends = call.live.sum(axis=0)
    steps = ends + loss_at if loss_at < 0 else np.full(len(ends), loss_at)
    rows = np.nonzero((steps >= 0) & (steps < ends))[0]
    dy = np.zeros_like(y)
    call.axes.rows(dy)[rows, steps[rows]] = 1
    return dy


def _layers(call: LayerCall) -> list[LayerFlow]:
    flows = []
    for seen, totals in zip(call.seen, chain(*call.totals), strict=True):
        cell = _norms(total_of_cell(seen, *totals)) if seen.kind == "LSTM" else None
        flows.append(LayerFlow(seen.name, seen.kind, _norms(totals[0]), cell, *carousel_of(seen)))
    return flows


def _norms(gradient: np.ndarray) -> np.ndarray:
    """The Euclidean norm of every step of [T, B, features]."""
    with quiet():
        squares = np.square(gradient, dtype=np.float64)
        return np.asarray(np.sqrt(squares.sum(axis=(1, 2))))
