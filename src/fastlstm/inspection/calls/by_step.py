"""A recurrent layer's inference with its gradients, one step after the other."""

from copy import copy
from typing import Any

import numpy as np

from fastlstm.engine.prepared import Link
from fastlstm.engine.reading.mask import Axes, Kept, within
from fastlstm.engine.reading.plan import Opened, read_gradient
from fastlstm.engine.reading.state import form_of, parts_of
from fastlstm.engine.stack import Stack
from fastlstm.inspection.calls.copies import become
from fastlstm.inspection.calls.steps import Parts, Seen
from fastlstm.kernels.reference.core.walk import cuts_of
from fastlstm.layers import gru, lstm_options, rnn
from fastlstm.module import Gradients

KINDS: dict[type, str] = {lstm_options.Cell: "LSTM", gru.Cell: "GRU", rnn.Cell: "RNN"}


class StepByStep(Stack):
    """A recurrent layer whose `forward` computes the bits of a call, and its gradients by step."""

    _prefix = ""  # of its parameters' names in the model

    def forward(
        self, x: Any, state: Any = None, *, recompute: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        call = LayerCall(self, self._opened(x, state, **options))
        return call.result, call

    def backward(
        self,
        tape: Any,
        dy: Any = None,
        dstate: Any = None,
        *,
        with_x: bool = True,  # computed in any case
        threads: Any = None,
    ) -> Gradients:
        gradients: Gradients
        if not self.one_step:
            gradients = tape.backward(dy, dstate)
            return gradients
        # A cell gets the gradient of its next state alone, and its states have no axis of layers.
        dstate = None if dy is None else form_of([np.asarray(part)[None] for part in parts_of(dy)])
        gradients = tape.backward(None, dstate)
        gradients.state = form_of([part[0] for part in parts_of(gradients.state)])
        gradients.x = tape.dx.reshape(tape.call.x.shape)
        return gradients


def step_by_step(layer: Stack) -> Stack:
    """A copy of a recurrent layer whose `forward` and `backward` compute inference."""
    twin: Stack = become(copy(layer), StepByStep)
    return twin


class LayerCall:
    """A call of a recurrent layer, which may be several layers in two directions.

    Attributes
    ----------
    layers : list of lists of Seen
        By layer and direction.
    totals : list of lists of tuples of arrays
        By layer and direction, after `backward`: see `Seen.walk_back`.
    dx : array [T, B, I]
        The gradient of x, after `backward`.
    """

    totals: list[list[Parts]]
    dx: np.ndarray

    def __init__(self, stack: StepByStep, opened: Opened):
        self.stack, self.call, self._opened = stack, opened.call, opened
        T, B = self.sizes = self.call.sizes(stack._form)
        lengths, resets = self.call.lengths, self.call.resets
        self.live = np.ones((T, B), np.bool_) if lengths is None else within(lengths, T).T
        steps = None if resets is None else self.in_time(resets)
        self._cuts = [cuts_of(steps, lengths, reverse) for reverse in stack.cells.reverse]
        x = self.in_time(self.call.x)
        if opened.saved is None or not self.live.all():
            x = np.where(self.live[..., None], x, x.dtype.type(0))
        self.layers: list[list[Seen]] = []
        for layer in range(len(stack.cells.by_layer)):
            self.layers.append(self._see(layer, x))
            outputs = [seen.states[0] for seen in self.layers[-1]]
            x = np.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    @property
    def seen(self) -> list[Seen]:
        return [seen for layer in self.layers for seen in layer]

    @property
    def axes(self) -> Axes:
        """The first axes of x."""
        return Axes(self.call.x.ndim == 3, self.stack.batch_first)

    @property
    def kept(self) -> Kept | None:
        """The places of the steps, if this layer was given a mask."""
        return None if self.call.given is None else self.call.given.kept

    @property
    def result(self) -> Any:
        """What the layer returns."""
        y, final = self._opened.y, self._opened.final
        if self.stack.one_step:
            return final
        return y if self.call.given is None else self.call.given.give_back(y), final

    def backward(self, dy: Any, dstate: Any) -> Gradients:
        """Set `totals` and `dx`, step by step, and return gradients but those of parameters."""
        form, call = self.stack._form, self.call
        dy = read_gradient(dy, call, form)
        dstate = form.layout.read("dstate", dstate, call.batch(form), form.dtype)
        d_out = np.zeros((*self.sizes, form.outputs), form.dtype)
        if dy is not None:
            d_out = np.where(self.live[..., None], self.in_time(dy), d_out)
        firsts: list[Any] = []
        self.totals = []
        for k, layer in reversed(list(enumerate(self.layers))):
            parts, lasts = np.split(d_out, len(layer), axis=-1), self._by_direction(dstate, k)
            walks = list(map(Seen.walk_back, layer, parts, lasts))
            d_out = np.sum([dx for dx, _, _ in walks], axis=0, dtype=form.dtype)
            self.totals.insert(0, [totals for _, _, totals in walks])
            shape = len(layer), *call.batch(form), -1
            first = zip(*(d_first for _, d_first, _ in walks), strict=True)
            firsts.insert(0, tuple(np.stack(part).reshape(shape) for part in first))
        self.dx = d_out
        dx = self.axes.of_rows(d_out.swapaxes(0, 1))
        if call.given is not None:
            dx = call.given.give_back(dx, repeat=False)
        return Gradients(dx, form.layout.joined(firsts), {})

    def in_time(self, array: np.ndarray) -> np.ndarray:
        """An array with the axes of the call's x as [T, B, ...]."""
        if self.stack.one_step:
            return array.reshape(*self.sizes, *array.shape[self.call.x.ndim - 1 :])
        return self.axes.rows(array).swapaxes(0, 1)

    def _see(self, layer: int, x: np.ndarray) -> list[Seen]:
        """What a layer computed from x [T, B, I], by direction."""
        stack, opened = self.stack, self._opened
        firsts, saved = self._by_direction(self.call.state, layer), None
        if opened.saved is not None:
            of_layer = opened.saved[layer]
            # The output has the form of x where it is that of a whole call.
            in_form = isinstance(of_layer, Link) or layer == len(stack.cells.by_layer) - 1
            y, saved = of_layer.saved[0] if isinstance(of_layer, Link) else of_layer
            y = self.in_time(y) if in_form else y
        by_direction = []
        for d, cell in enumerate(stack.cells.by_layer[layer]):
            suffix = stack.cells.suffix(layer, d)
            seen = Seen(
                name=f"{stack._prefix}l{layer}{'_reverse' if d else ''}",
                kind=KINDS.get(type(cell), type(stack).__name__),
                cell=cell,
                parameters={name: opened.parameters[name + suffix] for name in cell.shapes()},
                one_step=opened.steps[layer][d],
                x=x,
                first=firsts[d],
                reverse=stack.cells.reverse[d],
                lengths=self.call.lengths,
                live=self.live,
                cuts=self._cuts[d],
            )
            if saved is None:
                seen.walk()
            else:
                P = cell.sizes[0]
                seen.states = y[..., d * P : (d + 1) * P], *saved[d][1 : len(cell.sizes)]
                seen.saved = saved[d]
            seen.clear()
            by_direction.append(seen)
        return by_direction

    def _by_direction(self, state: Any, layer: int) -> list[Parts]:
        """The state of one layer by direction, each part [B, size]; zeros for None."""
        D, B, sizes = (
            len(self.stack.cells.reverse),
            self.sizes[1],
            self.stack.cells.by_layer[layer][0].sizes,
        )
        if state is None:
            parts = [np.zeros((D, B, size), self.stack.dtype) for size in sizes]
        else:
            own = state if self.stack.one_step else self.stack._form.layout.of_layer(state, layer)
            pairs = zip(parts_of(own), sizes, strict=True)
            parts = [part.reshape(D, B, size) for part, size in pairs]
        return list(zip(*parts, strict=True))
