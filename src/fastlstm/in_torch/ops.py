"""Calls as operators of torch, for `torch.compile`.

An operator takes and returns tensors only, so its backward computes the forward once more.
"""

from typing import Any

import torch

from fastlstm.in_torch import calls
from fastlstm.in_torch.autograd import refuse
from fastlstm.in_torch.packed import CACHE, Form

Tensors = list[torch.Tensor]
ARGUMENTS = (
    "Tensor x, Tensor[] state, Tensor[] weights, str mode, int layers, "
    "bool bidirectional, bool batch_first, bool one_step"
)


@torch.library.custom_op(
    "fastlstm::recurrent", mutates_args=(), schema=f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor)"
)
def recurrent(
    x: torch.Tensor,
    state: list[torch.Tensor],
    weights: list[torch.Tensor],
    mode: str,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    one_step: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return y, h and c; in place of what the layer does not have, an empty tensor."""
    form = _form(x, weights, mode, layers, bidirectional, batch_first, one_step)
    results = calls.infer(CACHE.get(form, weights), x, None, state)
    return _three(form, x, results)


@recurrent.register_fake
def _(x: Any, state: Any, weights: Any, *options: Any) -> Any:
    form = _form(x, weights, *options)
    return _three(form, x, _shapes(form, x, state))


@torch.library.custom_op(
    "fastlstm::recurrent_backward",
    mutates_args=(),
    schema=f"(Tensor[] gradients, {ARGUMENTS}) -> Tensor[]",
)
def recurrent_backward(
    gradients: list[torch.Tensor],
    x: torch.Tensor,
    state: list[torch.Tensor],
    weights: list[torch.Tensor],
    mode: str,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    one_step: bool,
) -> list[torch.Tensor]:
    """Return the gradients of x, each part of the state that is given, and each weight."""
    form = _form(x, weights, mode, layers, bidirectional, batch_first, one_step)
    packed = CACHE.get(form, weights)
    _, saved = calls.train(packed, x, None, state)
    given = gradients[1:] if one_step else gradients
    dx, *rest = calls.backward(packed, saved, given[: form.parts + (not one_step)])
    return [dx, *rest[0 if state else form.parts :]]


@recurrent_backward.register_fake
def _(gradients: Any, x: Any, state: Any, weights: Any, *options: Any) -> Any:
    return [_new(tensor, tensor.shape) for tensor in (x, *state, *weights)]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, state, weights, *ctx.options = inputs
    ctx.parts = len(state)
    ctx.save_for_backward(x, *state, *weights)


def _differentiate(ctx: Any, *gradients: torch.Tensor) -> Any:
    x, *rest = ctx.saved_tensors
    state, weights = rest[: ctx.parts], rest[ctx.parts :]
    dx, *of_rest = recurrent_backward(list(gradients), x, state, weights, *ctx.options)
    return dx, of_rest[: ctx.parts], of_rest[ctx.parts :], *[None] * len(ctx.options)


recurrent.register_autograd(_differentiate, setup_context=_save)


recurrent_backward.register_autograd(refuse)


def call(form: Form, x: Any, state: Any, weights: Any) -> tuple[Any, ...]:
    """As `fastlstm.in_torch.autograd.call`, by the operator."""
    options = form.mode, form.layers, form.bidirectional, form.batch_first, form.one_step
    y, h, c = recurrent(x, list(state), list(weights), *options)
    return (*(() if form.one_step else (y,)), h, *((c,) if form.parts > 1 else ()))


def _form(
    x: torch.Tensor,
    weights: Tensors,
    mode: str,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
    one_step: bool,
) -> Form:
    gates = {"LSTM": 4, "GRU": 3}.get(mode, 1)
    H, P = weights[0].shape[0] // gates, weights[1].shape[1]
    bias = len(weights) // (layers * (1 + bidirectional)) >= 4
    return Form(
        mode, weights[0].shape[1], H, P, layers, bias, bidirectional, batch_first, one_step, x.dtype
    )


def _three(
    form: Form, x: torch.Tensor, results: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """y, h and c, with empty tensors for what the layer does not have."""
    y, parts = ((), results) if form.one_step else (results[:1], results[1:])
    h, *c = parts
    return y[0] if y else x.new_empty(0), h, c[0] if c else x.new_empty(0)


def _shapes(form: Form, x: Any, state: Any) -> tuple[Any, ...]:
    """Tensors like those that `calls.infer` returns."""
    sizes = (form.P, form.H)[: form.parts]
    rows = form.layers * (1 + form.bidirectional)
    if form.one_step:
        return tuple(_new(x, (*x.shape[:-1], size)) for size in sizes)
    if state:
        batch = state[0].shape[1:-1]
    else:
        batch = () if x.dim() == 2 else (x.shape[0 if form.batch_first else 1],)
    y = _new(x, (*x.shape[:-1], (1 + form.bidirectional) * form.P))
    return (y, *(_new(x, (rows, *batch, size)) for size in sizes))


def _new(x: torch.Tensor, shape: Any) -> torch.Tensor:
    return x.new_empty(shape)
