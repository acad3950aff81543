"""Backward through time in little memory: of the states, one is kept every few steps.

`backward` computes one span of steps after the other again, from the last to the first (Chen et al.
2016, "Training deep nets with sublinear memory cost"). All results have the bits of a `forward`
that keeps everything.

Layers of one direction are computed together, span by span. With two directions, a layer needs the
whole output of the layer below, and each direction goes through the spans in an order of its own.
"""

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import memory_for, read_size
from fastlstm.engine.dropout import Dropped
from fastlstm.engine.prepared import Chain, Drawn, Whole, prepare
from fastlstm.engine.reading.state import StateLayout, parts_of
from fastlstm.kernels.arguments import Kernels, Masks, Packed, State, kept


def read_recompute(recompute: Any) -> int | str:
    """Check a caller's number of steps after which a state is kept, or "sqrt"."""
    if isinstance(recompute, str):
        if recompute != "sqrt":
            raise ValueError(
                f'recompute: expected a number of steps, "sqrt" or None, got {recompute!r}'
            )
        return recompute
    return read_size("recompute", recompute)


class Leg(NamedTuple):
    """Layers that are computed together, in one direction."""

    calls: Whole | Chain
    reverse: bool
    columns: slice  # of the output


def prepare_legs(
    kernels: Kernels,
    cells: Sequence[Sequence[Packed]],  # by layer and direction
    reverse: tuple[bool, ...],
    layout: StateLayout,
    **options: Any,  # of `prepare`
) -> list[list[Leg]] | None:
    """As `prepare`: groups of legs with the same input, in the order in which they are computed."""
    if len(reverse) == 1:
        calls = prepare(kernels, cells, reverse, layout, **options)
        return None if calls is None else [[Leg(calls, *reverse, slice(None))]]
    groups: list[list[Leg]] = []
    options["by_layer"] = False
    for layer, size in zip(cells, layout.sizes[0], strict=True):
        groups.append([])
        for d, cell in enumerate(layer):
            calls = prepare(kernels, [[cell]], reverse[d : d + 1], layout, **options)
            if calls is None:
                return None
            groups[-1].append(Leg(calls, reverse[d], slice(d * size, (d + 1) * size)))
    return groups


class Checkpoints(NamedTuple):
    """What `forward` keeps besides its arguments."""

    inputs: list[np.ndarray]  # of every group, before dropout
    states: list[list[list[State]]]  # by group and leg: the state before every span
    drawn: Any  # as given, with flags as bits


class Recomputing(NamedTuple):
    """`forward` and `backward` as those of `Whole`, which keep little; arguments must be ready."""

    groups: list[list[Leg]]
    layout: StateLayout
    batch_first: bool
    every: int | str  # steps of a span, or "sqrt"

    def forward(
        self,
        x: np.ndarray,
        state: Any,
        lengths: np.ndarray | None,
        resets: np.ndarray | None,
        out: None,
        drawn: Any,
        keep: bool,
    ) -> Any:
        lengths = None if lengths is None else lengths.copy()
        resets = None if resets is None else resets.copy()
        arguments = kept(x), None, lengths, resets  # the checkpoints have the state
        y, saved = arguments[0], Checkpoints([], [], _with_bits(drawn))
        finals: list[list[State]] = []
        for g, (legs, firsts) in enumerate(zip(self.groups, self._split(state), strict=True)):
            part = self._part(g, y, lengths, resets, saved.drawn)
            # A group is one layer, or all: then the last layer's width.
            width = self.layout.sizes[0][g - len(self.groups)]
            shape = (*x.shape[:-1], self.layout.directions * width)
            with memory_for("x", shape):
                y = np.empty(shape, x.dtype)
            saved.inputs.append(part.x)
            saved.states.append([])
            finals.append([])
            for d, (leg, first) in enumerate(zip(legs, firsts, strict=True)):
                states = part.forward(d, leg, first, y[..., leg.columns])
                if states is NotImplemented:
                    return NotImplemented
                finals[g].append(states.pop())
                saved.states[g].append(states)
        y.flags.writeable = False
        return y, self._joined(finals), saved, arguments

    def backward(
        self,
        x: np.ndarray,
        state: None,
        lengths: np.ndarray | None,
        resets: np.ndarray | None,
        drawn: None,
        saved: Checkpoints,
        dy: np.ndarray | None,
        dstate: Any,
        with_x: bool = True,
    ) -> Any:
        dfirsts: list[list[State]] = []
        gradients: list[Any] = []
        dlasts = self._split(dstate)
        for g, legs in reversed(list(enumerate(self.groups))):
            part = self._part(g, saved.inputs.pop(), lengths, resets, saved.drawn)
            dx = None
            if with_x or g > 0:
                with memory_for("x", part.x.shape):
                    dx = np.empty(part.x.shape, part.x.dtype)
            dfirsts.insert(0, [])
            of_group: list[Any] = []
            kept_and_last = zip(saved.states.pop(), dlasts[g], strict=True)
            for d, (states, last) in enumerate(kept_and_last):
                of_leg = None if dy is None else dy[..., legs[d].columns]
                dfirst, of_cells = part.backward(d, legs[d], states, of_leg, last, dx)
                dfirsts[0].append(dfirst)
                of_group += of_cells
            gradients[:0] = of_group
            if dx is not None:
                part.drop_gradient(dx)
            dy = dx
        return dy, self._joined(dfirsts), tuple(gradients)

    def _part(self, g: int, x: np.ndarray, lengths: Any, resets: Any, drawn: Any) -> "GroupCall":
        axis = int(self.batch_first and x.ndim == 3)
        T = x.shape[axis]
        every = math.isqrt(max(T - 1, 0)) + 1 if isinstance(self.every, str) else self.every
        by_leg, dropped = [drawn], None
        if self.layout.directions == 2:
            masks = drawn
            if isinstance(drawn, Drawn):
                masks, dropped = drawn.masks, drawn.dropped[g]
            by_leg = [None if masks is None else (masks[2 * g + d],) for d in range(2)]
        return GroupCall(x, lengths, resets, by_leg, dropped, axis, every)

    def _split(self, state: Any) -> list[list[State]]:
        """A state of the whole stack, by group and leg."""
        if self.layout.directions == 1:
            return [[state]]
        layers = [self.layout.of_layer(state, g) for g in range(len(self.groups))]
        both = slice(0, 1), slice(1, 2)
        return [[_each(itemgetter(own), layer) for own in both] for layer in layers]

    def _joined(self, states: list[list[State]]) -> State:
        """The inverse of `_split`."""
        if self.layout.directions == 1:
            return states[0][0]
        by_part = [zip(*map(parts_of, own), strict=True) for own in states]
        return self.layout.joined([tuple(map(np.concatenate, parts)) for parts in by_part])


class GroupCall(NamedTuple):
    """The arguments of one group, which its legs take span by span."""

    x: np.ndarray  # before dropout
    lengths: np.ndarray | None
    resets: np.ndarray | None
    drawn: list[Any]  # by leg: as `Whole` or `Chain` take it, with flags as bits
    dropped: Dropped | None  # of x
    axis: int  # of steps in x
    every: int  # steps of a span

    def forward(self, d: int, leg: Leg, state: State, y: np.ndarray) -> Any:
        """Fill y; returns the state before every span and the final state."""
        states = []
        for span in self._spans(leg.reverse):
            states.append(self._cut(leg, span, state))
            result, target = NotImplemented, self._at(y, span)
            if self.drawn[d] is None:  # without random numbers, inference has the same bits
                result = self._compute(d, leg, span, states[-1], target, keep=False)
            if result is NotImplemented:
                result = self._compute(d, leg, span, states[-1])
            if result is NotImplemented:
                return result
            if result[0] is not target:
                target[...] = result[0]
            state = result[1]
        return [*states, state]

    def backward(
        self, d: int, leg: Leg, states: list[State], dy: Any, dstate: State, dx: np.ndarray | None
    ) -> Any:
        """Return the gradients of state and weights. Fill dx, or add to it after the first leg."""
        B = self.x.shape[1 - self.axis] if self.x.ndim == 3 else 1
        sums = leg.calls.sums(self.x.shape[self.axis], B)
        gradients = None
        for span in self._spans(leg.reverse)[::-1]:
            _, _, saved, (x, state, _, resets) = self._compute(d, leg, span, states.pop())
            lengths = None
            if self.lengths is not None:  # the kernels order the rows by these
                lengths = np.maximum(self.lengths - span.start, 0)
            own_dy, own_dx = (None if dz is None else self._at(dz, span) for dz in (dy, dx))
            call = x, state, lengths, resets, self._drawn(d, span), saved, own_dy, dstate
            result = leg.calls.backward(*call, dx is not None, sums, own_dx if d else None)
            if own_dx is not None and not d:
                own_dx[...] = result[0]
            dstate, gradients = self._cut(leg, span, result[1]), result[2]
            del saved  # before that of the next span
        return dstate, gradients

    def drop_gradient(self, dx: np.ndarray) -> None:
        """Change the gradient of the input after dropout to that before."""
        if self.dropped is None:
            return
        for span in self._spans():
            own = self._at(dx, span)
            own[...] = self._dropped(self.dropped, span)(own)

    def _compute(
        self, d: int, leg: Leg, span: slice, state: State, out: Any = None, keep: bool = True
    ) -> Any:
        lengths, resets = self.lengths, self.resets
        if lengths is not None:
            lengths = np.clip(lengths - span.start, 0, span.stop - span.start)
        if resets is not None:
            resets = self._at(resets, span)
        x = self._at(self.x, span)
        if self.dropped is not None:
            x = self._dropped(self.dropped, span)(x)
        return leg.calls.forward(x, state, lengths, resets, out, self._drawn(d, span), keep)

    def _spans(self, reverse: bool = False) -> list[slice]:
        """Spans of steps, in the order of a leg."""
        T = self.x.shape[self.axis]
        starts = range(0, max(T, 1), self.every)
        spans = [slice(start, min(start + self.every, T)) for start in starts]
        return spans[::-1] if reverse else spans

    def _at(self, array: np.ndarray, span: slice) -> np.ndarray:
        """A span of an array with the axes of x."""
        return array[:, span] if self.axis else array[span]

    def _cut(self, leg: Leg, span: slice, state: State) -> State:
        """The state before a span, or its gradient, with zeros where a reset is between spans.

        In the direction of time, the kernels see this reset as one at the first step.
        """
        if not leg.reverse or self.resets is None or span.stop == self.x.shape[self.axis]:
            return state
        cuts = self.resets[:, span.stop] if self.axis else self.resets[span.stop]
        if self.lengths is not None:
            cuts = cuts & (self.lengths > span.stop)
        return _each(lambda part: np.where(cuts[..., None], part.dtype.type(0), part), state)

    def _drawn(self, d: int, span: slice) -> Any:
        """The random numbers of a span, for the kernels."""
        drawn = self.drawn[d]
        if isinstance(drawn, Drawn):
            dropped = (own and self._dropped(own, span) for own in drawn.dropped)
            return Drawn(tuple(dropped), _masks_at(drawn.masks, span))
        return None if drawn is None else _masks_at(drawn, span)

    def _dropped(self, dropped: Dropped, span: slice) -> Dropped:
        return Dropped(self._at(dropped.kept, span), dropped.scale)


class Bits:
    """An array of bools that takes an eighth of the memory; an index gives arrays."""

    def __init__(self, flags: np.ndarray):
        self._bits, self._size = np.packbits(flags, axis=-1), flags.shape[-1]

    def __getitem__(self, index: Any) -> np.ndarray:
        bits = self._bits[index]
        return np.unpackbits(bits, axis=-1, count=self._size).view(np.bool_)


def _with_bits(drawn: Any) -> Any:
    """The random numbers of a call, with flags as `Bits`."""
    if isinstance(drawn, Drawn):
        dropped = (own and Dropped(_bits(own.kept), own.scale) for own in drawn.dropped)
        return Drawn(tuple(dropped), _with_bits(drawn.masks))
    return drawn and tuple(
        own and Masks(own.recurrent, _bits(own.kept_h), _bits(own.kept_c)) for own in drawn
    )


def _bits(flags: np.ndarray | None) -> Any:
    return None if flags is None else Bits(flags)


def _masks_at(masks: Any, span: slice) -> Any:
    """The masks of a span; their steps are the first axis."""
    return tuple(
        own and Masks(own.recurrent, *(flags and flags[span] for flags in own[1:])) for own in masks
    )


def _each(function: Callable[[np.ndarray], np.ndarray], state: Any) -> Any:
    """`function` of every array of a state."""
    if isinstance(state, (tuple, list)):
        return type(state)(_each(function, part) for part in state)
    return None if state is None else function(state)
