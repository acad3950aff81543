"""The calls of a stack, prepared once for its parameters, a build and a number of threads.

If all layers have the same width, a call is one call of the kernels (`Whole`). It takes arrays that
are ready, and returns NotImplemented for others. With layers of several widths, and with dropout
between layers, there is one call of the kernels for each layer (`Chain`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fastlstm.engine.dropout import Dropped
from fastlstm.engine.reading.state import StateLayout, parts_of
from fastlstm.kernels.arguments import Kernels, Masks, Packed, Thresholds

# The limits from which the work of a layer is divided among threads.
#
# Shapes below are (T, B, I, H). A ratio is the time of one thread divided by the time of two, on a
# virtual machine.

# Multiply-adds of one layer. Up to this many, one thread computes all of it: a second thread begins
# 20 to 130 µs after its invitation, which itself takes 8 to 25 µs. Ratios: 0.8 to 1.1 at
# (200, 1, 64, 64), 7 million; 1.0 at (20, 4, 64, 128), 8 million; 1.3 at (100, 1, 64, 128), 10
# million; 1.2 to 1.7 at (100, 1, 128, 128), 13 million.
PARALLEL_WORK = 8_000_000
# Rows for each thread. With fewer, threads divide the hidden units of every step instead of the
# rows: few rows make unequal parts, as 4 and 5. Ratios with divided units and divided rows: 1.87
# and 1.67 at (300, 9, 64, 96); 1.76 and 1.80 at (100, 12, 32, 64).
FEW_ROWS = 5
# Weights for each row of a thread. With more, threads divide the units too: a thread with a part of
# the rows reads all weights at every step, for few rows. Ratios with divided units and divided
# rows: 1.96 and 1.69 at (50, 8, 128, 256), 98 thousand; 1.91 and 1.91 at (100, 12, 64, 128), 16
# thousand; 1.95 and 1.97 at (50, 64, 512, 512), 66 thousand.
ROW_WEIGHTS = 20_000
# Multiply-adds of one step. With fewer, the units are not divided, since threads wait for each
# other in every step. Ratios: 0.9 at (512, 1, 1, 40), 7 thousand; 1.3 at (30, 4, 32, 64), 98
# thousand.
STEP_WORK = 60_000
LANES = 16  # hidden units that each thread gets at least: the lanes of the widest registers

THRESHOLDS = Thresholds(PARALLEL_WORK, STEP_WORK, FEW_ROWS, ROW_WEIGHTS, LANES)


class Drawn(NamedTuple):
    """The random numbers of one training call."""

    dropped: tuple[Dropped | None, ...]  # by layer: dropout of the layer's input
    masks: tuple[Masks | None, ...]  # by cell


class Whole(NamedTuple):
    """The kernels' `forward`, `backward` and `step` for one stack."""

    forward: Callable[..., Any]  # x, state, lengths, resets, out, masks, keep
    # x, state, lengths, resets, masks, saved, dy, dstate, with_x, sums, into
    backward: Callable[..., Any]
    step: Callable[..., Any]  # x, state, rows, out
    sums: Callable[..., Any]  # steps, rows: for calls of `backward` with a part of the steps

    def get_infer(self) -> Callable[..., Any]:
        """Return a function that takes a caller's arguments before they are checked."""
        return self.forward

    def get_step(self) -> Callable[..., Any]:
        """As `get_infer`, for one step of some rows."""
        return self.step


class Link(NamedTuple):
    """The arrays that one layer of a chain saves for `backward`."""

    x: Any  # the layer's input, after dropout
    state: Any  # a copy of the layer's initial state
    saved: Any  # from the layer's `forward`


class Chain(NamedTuple):
    """`forward` and `backward` as calls of one layer after another; arguments must be ready."""

    layers: tuple[Whole, ...]
    layout: StateLayout

    def get_infer(self) -> Callable[..., Any]:
        return _not_ready

    def get_step(self) -> Callable[..., Any]:
        return _not_ready

    def forward(
        self,
        x: Any,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        out: Any = None,
        drawn: Drawn | None = None,
        keep: bool = False,
    ) -> Any:
        states, links = [], []
        for k, layer in enumerate(self.layers):
            masks = None
            if drawn is not None:
                x, masks = _through(drawn.dropped[k], x), self._masks(drawn, k)
            own = self.layout.of_layer(state, k)
            target = out if k == len(self.layers) - 1 else None
            result = layer.forward(x, own, lengths, resets, target, masks, keep)
            if result is NotImplemented:
                return NotImplemented
            if keep:
                own_x, own_state, lengths, resets = result[3]
                links.append(Link(own_x, own_state, result[2]))
            x = result[0]
            states.append(result[1])
        final = self.layout.joined(states)
        if not keep:
            return x, final
        return x, final, tuple(links), (links[0].x, None, lengths, resets)

    def backward(
        self,
        x: Any,
        state: Any,  # None: the links have the states
        lengths: Any,
        resets: Any,
        drawn: Drawn | None,
        links: tuple[Link, ...],
        dy: Any,
        dstate: Any,
        with_x: bool = True,
        sums: Any = None,  # from `sums`
        into: Any = None,
    ) -> Any:
        dstates: list[Any] = []
        gradients: list[Any] = []
        for k, layer in reversed(list(enumerate(self.layers))):
            link, own = links[k], self.layout.of_layer(dstate, k)
            masks = None if drawn is None else self._masks(drawn, k)
            call = link.x, link.state, lengths, resets, masks, link.saved, dy, own
            with_own_x = with_x or k > 0
            dy, d_first, of_cells = layer.backward(*call, with_own_x, sums and sums[k])
            if drawn is not None and with_own_x:
                dy = _through(drawn.dropped[k], dy)
            dstates.append(d_first)
            gradients.append(of_cells)
        of_all = None
        if None not in gradients:
            of_all = tuple(cell for of_cells in reversed(gradients) for cell in of_cells)
        return dy, self.layout.joined(dstates[::-1]), of_all

    def sums(self, steps: int, rows: int) -> Any:
        return tuple(layer.sums(steps, rows) for layer in self.layers)

    def step(self, x: Any, state: Any, rows: Any, out: Any) -> Any:
        stepped = slice(None) if rows is None else rows
        changed: list[tuple[Any, Any]] = []  # arrays of the state, and what they were
        try:
            for k, layer in enumerate(self.layers[:-1]):
                own = self.layout.of_layer(state, k)
                changed += [(array, array[..., stepped, :].copy()) for array in parts_of(own)]
                x = layer.step(x, own, rows, None)
            own = self.layout.of_layer(state, len(self.layers) - 1)
            return self.layers[-1].step(x, own, rows, out)
        except BaseException:  # also of a signal
            for array, before in changed:
                array[..., stepped, :] = before
            raise

    def _masks(self, drawn: Drawn, layer: int) -> tuple[Masks | None, ...]:
        D = self.layout.directions
        return drawn.masks[layer * D : (layer + 1) * D]


def prepare(
    kernels: Kernels,
    cells: Sequence[Sequence[Packed]],  # by layer and direction
    reverse: tuple[bool, ...],
    layout: StateLayout,
    *,
    batch_first: bool,
    one_step: bool,
    by_layer: bool,
    threads: int,
) -> Whole | Chain | None:
    """The calls of a stack of packed cells; with `by_layer`, one kernel call for each layer.

    Returns None if `kernels` are compiled and one of the cells is in Python.
    """
    groups = [tuple(layer) for layer in cells]
    if not by_layer:
        groups = [tuple(cell for layer in groups for cell in layer)]
    options = reverse, batch_first, one_step, threads, THRESHOLDS
    stacks = [kernels.stack(group, *options) for group in groups]
    if NotImplemented in stacks:
        return None
    calls = tuple(
        Whole(
            partial(kernels.forward, stack),
            partial(kernels.backward, stack),
            partial(kernels.step, stack),
            partial(kernels.new_sums, stack),
        )
        for stack in stacks
    )
    return Chain(calls, layout) if by_layer else calls[0]


def prepare_steps(
    kernels: Kernels,
    cells: Sequence[Sequence[Packed]],
    reverse: tuple[bool, ...],
    layout: StateLayout,
    **options: Any,  # of `prepare`
) -> list[list[Any]] | None:
    """As `prepare`, by layer and direction: the calls of one step of one cell."""
    options |= {"batch_first": False, "one_step": True, "by_layer": False}
    steps = [
        [prepare(kernels, [[cell]], (False,), layout, **options) for cell in layer]
        for layer in cells
    ]
    return None if any(None in layer for layer in steps) else steps


def _not_ready(*_: Any) -> Any:
    return NotImplemented


def _through(dropped: Dropped | None, array: Any) -> Any:
    return array if dropped is None else dropped(array)
