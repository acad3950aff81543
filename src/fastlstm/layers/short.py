"""The short cut of small calls: one kernel call does all, for arrays that need nothing done.

Where the arithmetic is a step or two, what comes before it is most of a call's time. Each function
gives None for what it cannot take, bad input among it, and the caller goes the long way.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import threads as pool
from fastlstm.kernels import kernels
from fastlstm.layers.inputs import Plan, Rows
from fastlstm.layers.module import Gradients
from fastlstm.layers.shares import sharing
from fastlstm.layers.tape import LayerTape, RecurrentTape

if TYPE_CHECKING:
    from fastlstm.layers.recurrent import Recurrent

WHOLE = None, None, None, False  # rows, live, resets, reverse: every step of every row


def call(
    layer: "Recurrent", x: Any, state: Any, axes: tuple[int, int], keep: bool = False
) -> tuple[Any, ...] | None:
    """(y, state, *kept); `axes` are x's of steps and rows, (-1, 0) for one step without its axis.

    With `keep`, what is kept for `backward` follows, else as many None.
    """
    k, parameters, threads = kernels(layer.dtype), layer._parameters, pool.get_num_threads()
    try:
        kernel = parameters.derived[k, axes, threads]
    except KeyError:
        make = partial(layer._call_kernel, k, parameters, axes, sharing(layer, threads))
        kernel = parameters.derive((k, axes, threads), make)
    if kernel is None:
        return None
    result: tuple[Any, ...] | None = kernel(x, state, keep)
    return result


def forward(layer: "Recurrent", x: Any, state: Any) -> tuple[tuple[Any, Any], RecurrentTape] | None:
    """What `Recurrent.forward` returns."""
    k, parameters = kernels(layer.dtype), layer._parameters
    batch_first = layer.batch_first
    result = call(layer, x, state, (1, 0) if batch_first else (0, 1), True)
    if result is None:
        return None
    y, final, gates, cells = result
    y.flags.writeable = False
    steps = (x.swapaxes(0, 1), y.swapaxes(0, 1)) if batch_first else (x, y)
    plan = Plan("batch", batch_first, steps[0], layer._layout, state, Rows(), None, None)
    layers = [LayerTape(steps[0], None, steps[1], [{"gates": gates, "cells": cells}])]
    return (y, final), RecurrentTape(layer, parameters, k, plan, False, layers, is_short=True)


def backward(layer: "Recurrent", tape: RecurrentTape, dy: Any, dstate: Any) -> Gradients | None:
    """What `Recurrent.backward` returns."""
    kernel = layer._call_back_kernel(tape.kernels, tape.parameters)
    (this,) = tape.layers
    gates, cells = this.kept[0].values()
    if layer.batch_first and type(dy) is np.ndarray and dy.ndim == 3:
        dy = dy.swapaxes(0, 1)
    arguments = this.x, tape.plan.state, this.y, gates, cells, dy, dstate
    result = kernel(layer.batch_first, sharing(layer, pool.get_num_threads()), *arguments)
    if result is None:
        return None
    tape.used = True
    tape.layers.clear()
    dx, dstate, dW, dR, db = result
    params = {"weight_ih_l0": dW, "weight_hh_l0": dR}
    if layer.bias:
        params |= {"bias_ih_l0": db, "bias_hh_l0": db.copy()}
    return Gradients(dx, dstate, params)


def around(
    kernel: Callable[..., None], inputs: int, H: int, dtype: np.dtype, one_step: bool, most: int
) -> Callable[[Any, Any, bool], tuple[np.ndarray, np.ndarray] | None]:
    """A `_call_kernel` for cells whose state is h alone, from what `_forward_kernel` gives.

    x is [T, B, inputs] and h [1, B, H], or with `one_step` [B, inputs] and [B, H]; of `most` pairs
    of step and row.
    """

    def call(x: Any, h: Any, keep: bool) -> tuple[np.ndarray, np.ndarray] | None:
        if keep or type(x) is not np.ndarray or type(h) is not np.ndarray:
            return None
        if x.dtype is not dtype or h.dtype is not dtype or x.ndim != 3 - one_step:
            return None
        if one_step:
            x, h = x[None], h[None]
        T, B, features = x.shape
        if features != inputs or h.shape != (1, B, H) or not 0 < T * B <= most:
            return None
        y, h_n = np.empty((T, B, H), dtype), np.empty((1, B, H), dtype)
        try:
            kernel(x, (h[0],), y, (h_n[0],), WHOLE, {})
        except ValueError:
            return None  # not contiguous
        return (y[0], h_n[0]) if one_step else (y, h_n)

    return call
