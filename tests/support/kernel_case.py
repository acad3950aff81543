"""A run of kernels: random cells with input, state and gradients, on any build."""

from cells import CELLS, uniform_of
from walks import Walk

from fastlstm.kernels import reference
from fastlstm.kernels.arguments import Thresholds

THRESHOLDS = Thresholds(parallel_work=0, step_work=0, few_rows=5, row_weights=20_000, lanes=16)


class Case:
    """A stack of random cells with input, state and gradients, to be run on several kernels.

    x and y are [T, B, ...]. Inputs are read-only, so that writing to one fails.
    """

    def __init__(self, rng, dtype, cell, variant, sizes, walk=None, layers=1, bidirectional=False):
        T, B, I, H = sizes
        self.walk = walk or Walk()
        self.live, self.dtype = self.walk.live(T, B), dtype
        self.reverse = [False, True] if bidirectional else [self.walk.reverse]
        D = len(self.reverse)
        self.cells = []
        for _layer in range(layers):
            for _direction in self.reverse:
                made = CELLS[cell].make(rng, dtype, I, H, **CELLS[cell].variants[variant])
                self.cells.append(made)
            I = D * made.build(reference).sizes[0]
        packed = made.build(reference)
        self.sizes, self.names = packed.sizes, packed.names
        uniform = uniform_of(rng, dtype)
        self.x = rng.standard_normal((T, B, sizes[2])).astype(dtype)
        scales = 1, 2  # c may be larger than h
        self.state = tuple(
            uniform(layers * D, B, size, scale=scale)
            for size, scale in zip(self.sizes, scales, strict=False)
        )
        self.dy = uniform(T, B, D * self.sizes[0])
        self.dstate = tuple(uniform(layers * D, B, size) for size in self.sizes)
        self.masks = [made.draw(rng, T, B) for made in self.cells]
        for array in (self.x, self.dy, *self.state, *self.dstate):
            array.flags.writeable = False

    def pack(self, module, backward=True):
        return [made.build(module, backward) for made in self.cells]

    def stack(
        self,
        module,
        backward=True,
        batch_first=False,
        one_step=False,
        threads=1,
        thresholds=THRESHOLDS,
        cells=None,
    ):
        cells = cells or self.pack(module, backward)
        return module.stack(cells, self.reverse, batch_first, one_step, threads, thresholds)

    def infer(self, module, stack=None, **changed):
        """What inference gives, by name."""
        stack = stack or self.stack(module, backward=False)
        arguments = {"x": self.x, "state": in_form(self.state), **self._walk(), **changed}
        y, state = module.forward(stack, **arguments)
        return {"y": y} | named("state", state)

    def train(self, module):
        """What training gives, by name: also what is saved at live steps, and all gradients."""
        stack = self.stack(module)
        result, saved = self.forward(module, stack)
        return result | self.backward(module, stack, saved)

    def forward(self, module, stack):
        """As in training: what it gives, by name, and what it saves."""
        y, state, saved, _ = module.forward(stack, *self._inputs(), None, self.masks, True)
        result = {"y": y.copy()} | named("state", state)
        D = len(self.reverse)
        for layer, (y_of_layer, of_cells) in enumerate(saved):
            result[f"y of layer {layer}"] = y_of_layer.copy()
            for direction, arrays in enumerate(of_cells):
                for k, array in enumerate(arrays):
                    result[f"cell {layer * D + direction}, saved {k}"] = array[self.live]
        return result, saved

    def backward(self, module, stack, saved):
        """All gradients, by name."""
        gradients_of = self.dy, in_form(self.dstate)
        dx, dstate, gradients = module.backward(
            stack, *self._inputs(), self.masks, saved, *gradients_of
        )
        result = {"dx": dx} | named("dstate", dstate)
        for k, of_cell in enumerate(gradients):
            for name, gradient in zip(self.names, of_cell, strict=True):
                result[f"cell {k}, {name}"] = gradient
        return result

    def _inputs(self):
        return self.x, in_form(self.state), *self._walk().values()

    def _walk(self):
        return {"lengths": self.walk.lengths, "resets": self.walk.resets}


def in_form(parts):
    """A state as kernels take it."""
    return parts if len(parts) > 1 else parts[0]


def named(name, state):
    parts = state if isinstance(state, tuple) else (state,)
    return {f"{name} {k}": part for k, part in enumerate(parts)}
