"""The short cut of small calls: one kernel call does all, for arrays that need nothing done.

Where the arithmetic is a step or two, what comes before it is most of a call's time. Each function
gives None for what it cannot take, bad input among it, and the caller goes the long way.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm import threads as pool
from fastlstm.checks import LARGEST
from fastlstm.kernels import kernels
from fastlstm.layers.gradients import bias_gradients
from fastlstm.layers.inputs import Plan, Rows
from fastlstm.layers.module import Gradients
from fastlstm.layers.tape import LayerTape, RecurrentTape

if TYPE_CHECKING:
    from fastlstm.layers.recurrent import Recurrent


def call(
    layer: "Recurrent", x: Any, state: Any, axes: tuple[int, int], keep: bool = False
) -> tuple[Any, ...] | None:
    """(y, state, *kept); `axes` are x's of steps and rows, (-1, 0) for one step without its axis.

    With `keep`, what is kept for `backward` follows, else as many None.
    """
    k, parameters = kernels(layer.dtype), layer._parameters
    try:
        kernel = parameters.derived[k, axes]
    except KeyError:
        make = partial(layer._call_kernel, k, parameters, axes)
        kernel = parameters.derive((k, axes), make)
    if kernel is None:
        return None
    alone = pool.get_num_threads() == 1
    result: tuple[Any, ...] | None = kernel(LARGEST if alone else layer._most_alone, x, state, keep)
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
    state = tape.plan.state
    result = kernel(layer.batch_first, this.x, state, this.y, gates, cells, dy, dstate)
    if result is None:
        return None
    tape.used = True
    tape.layers.clear()
    dx, dstate, dW, dR = result
    params = {"weight_ih_l0": dW, "weight_hh_l0": dR}
    if layer.bias:
        bias_gradients(gates, [], "_l0", params)
    return Gradients(dx, dstate, params)
