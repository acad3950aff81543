"""A copy of a model whose recurrent layers record one call."""

from typing import Any

import numpy as np

from fastlstm.changes import CHANGES
from fastlstm.engine.one_step import OneStep
from fastlstm.engine.reading.mask import Given, read_batch
from fastlstm.engine.reading.state import parts_of
from fastlstm.engine.stack import Stack
from fastlstm.inspection.calls.by_step import LayerCall, StepByStep
from fastlstm.inspection.calls.copies import Same, become
from fastlstm.layers.dropout import Dropout
from fastlstm.module import Module, Output


class Watch:
    """A copy of a model, with its parameters of this moment, whose one call is recorded.

    Its call, and its `forward`, compute the bits of the model's inference. At the end of a `with`,
    the record is dropped.
    """

    def __init__(self, model: Any):
        if not isinstance(model, Module):
            raise TypeError(f"model: expected a layer or a model of layers, got {model!r}")
        self._original = model
        self._calls: list[LayerCall] = []  # of the recurrent layers, in their order
        with CHANGES.lock:
            twins: dict[int, Module] = {}
            for prefix, module in model._parts():
                if isinstance(module, Dropout):
                    twins[id(module)] = Same()
                elif isinstance(module, Stack) and (module is model or not module.one_step):
                    _refuse_own_methods(module)
                    twin = become(module._bound_copy(twins), Watched)
                    twin.__dict__.update(_prefix=prefix, _calls=self._calls)
            self.model: Any = model._bound_copy(twins)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        # A call knows its layer, which has this list: the arrays would wait for the collector of
        # circles, and new ones would take new pages of memory.
        self._calls.clear()

    @property
    def calls(self) -> list[LayerCall]:
        if not self._calls:
            name = type(self._original).__name__
            raise ValueError(f"model: expected one with a recurrent layer, got {name} without one")
        return self._calls

    def read(
        self, x: Any, lengths: Any, resets: Any, mask: Any = None
    ) -> tuple[Any, dict[str, Any], Given | None]:
        """x as an array and the model's options for it; and its form, of a list or with a mask."""
        options = {"lengths": lengths, "resets": resets, "mask": mask}
        options = {name: value for name, value in options.items() if value is not None}
        if isinstance(self._original, OneStep):
            for name in options:
                raise ValueError(f"{name}: a cell takes one step, so expected None")
            return x, {}, None
        if mask is None and not isinstance(x, (list, tuple)):
            return x, options, None
        stacks = [part for _, part in self._original._parts() if isinstance(part, Stack)]
        batch_first = bool(stacks) and stacks[0].batch_first
        batch = read_batch(x, lengths, resets, mask, features=None, batch_first=batch_first)
        options = {"lengths": batch.lengths, "resets": batch.resets}
        options = {name: value for name, value in options.items() if value is not None}
        return batch.x, options, batch.given

    def output(self, result: Any) -> Any:
        """The output in what the model returned."""
        if isinstance(self._original, OneStep):
            return parts_of(result)[0]
        return result[0] if self._original.is_recurrent else result

    def has_steps(self, y: Any) -> bool:
        """Whether an output of the model begins with the axes of x."""
        first = self.calls[0]
        if first.stack.one_step or self._original._output(Output()).pooled:
            return False
        given = first.call.given
        lead = first.call.x.shape[:-1] if given is None else given.shape
        return isinstance(y, np.ndarray) and y.shape[: len(lead)] == lead


class Watched(StepByStep):
    """A recurrent layer that records its call."""

    _calls: list[LayerCall]

    def __call__(self, x: Any, state: Any = None, **options: Any) -> Any:
        return self.forward(x, state, **options)[0]

    def forward(self, x: Any, state: Any = None, **options: Any) -> tuple[Any, Any]:
        if any(call.stack is self for call in self._calls):
            name = self._prefix.rstrip(".")
            raise ValueError(f"model: expected one call of each recurrent layer, got two of {name}")
        result, call = super().forward(x, state, **options)
        self._calls.append(call)
        return result, call


def _refuse_own_methods(layer: Stack) -> None:
    """Raise if a layer computes sequences in a way of its own, which would not be seen."""
    kind = type(layer)
    for method in () if layer.one_step else ("__call__", "forward", "backward"):
        if getattr(kind, method) is not getattr(Stack, method):
            raise ValueError(
                f"model: {kind.__name__} has a {method} of its own, which would not be seen; "
                "a Module around the recurrent layer may have one"
            )
