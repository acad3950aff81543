"""Calls that torch's autograd can go back through, outside of `torch.compile`."""

from collections.abc import Sequence
from typing import Any

import torch

from fastlstm.in_torch import calls
from fastlstm.in_torch.packed import CACHE, Form

Tensors = Sequence[torch.Tensor]


def call(
    form: Form, x: torch.Tensor, batch_sizes: torch.Tensor | None, state: Tensors, weights: Tensors
) -> tuple[torch.Tensor, ...]:
    """Return y and the parts of the final state; of a cell, the state alone."""
    packed = CACHE.get(form, weights)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *state, *weights)):
        result: tuple[torch.Tensor, ...] = _apply(
            packed, len(state), batch_sizes, x, *state, *weights
        )
        return result
    return calls.infer(packed, x, batch_sizes, state)


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        packed: Any,
        parts: int,
        batch_sizes: torch.Tensor | None,
        x: torch.Tensor,
        *state_and_weights: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        results, saved = calls.train(packed, x, batch_sizes, state_and_weights[:parts])
        # torch checks, at a backward, that nobody has changed these tensors since.
        ctx.save_for_backward(x, *state_and_weights)
        ctx.packed, ctx.parts, ctx.batch_sizes = packed, parts, batch_sizes
        # A backward takes it out. Hooks for saved tensors, as checkpointing sets them, see only the
        # tensors above, so nothing else is kept then.
        ctx.saved = [] if _have_hooks() else [saved]
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        x, *state_and_weights = ctx.saved_tensors  # raises if torch has freed them
        try:
            saved = ctx.saved.pop()
        except IndexError:  # not kept, or used up by a backward with retain_graph=True
            state = state_and_weights[: ctx.parts]
            _, saved = calls.train(ctx.packed, x, ctx.batch_sizes, state)
        of_x = ctx.needs_input_grad[3]
        dx, *rest = calls.backward(ctx.packed, saved, gradients, of_x)
        if not ctx.parts:  # of a state that was not given
            del rest[: ctx.packed.form.parts]
        results = (dx, *rest) if of_x else rest
        if torch.is_grad_enabled():
            given = [gradient for gradient in gradients if gradient is not None]
            results = _Once.apply(len(results), *results, *given, x, *state_and_weights)
        return None, None, None, *(() if of_x else (None,)), *results


# As `_Call.apply`, without its search for transforms of torch.func, where these do not compute.
_apply: Any = super(torch.autograd.Function, _Call).apply


def _have_hooks() -> bool:
    """Whether torch.autograd.graph.saved_tensors_hooks are in force."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


class _Once(torch.autograd.Function):
    """Gradients that cannot be differentiated again, and say so."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        refuse()


def refuse(*_: Any) -> Any:
    """Raise the error of a backward through a backward."""
    raise RuntimeError(
        "fastlstm.torch has no gradients of gradients: take torch's own layers for this model, "
        "fastlstm.torch.restore(model)"
    )
