"""The constant error carousel: how the state is carried on from step to step."""

import math

import numpy as np

from fastlstm.checks import quiet
from fastlstm.inspection.calls.steps import Seen
from fastlstm.kernels.arguments import Activation
from fastlstm.kernels.reference.core.activations import activate, activation_slope
from fastlstm.kernels.reference.core.layer_norm import standardize, standardize_backward
from fastlstm.layers.lstm_options import Variant

CARRIES = {"LSTM": 1, "GRU": 1}  # the gate, of those saved, that carries the state: f, z


def carousel_of(seen: Seen) -> tuple[np.ndarray | None, float | None]:
    """`carousel` and `half_life` of a `LayerFlow`."""
    if seen.kind not in CARRIES:
        return None, None
    kept = seen.zoneout[-1]
    carried = kept + (1 - kept) * seen.saved[0][:, :, CARRIES[seen.kind]].astype(np.float64)
    factors = carried.copy()
    if seen.cuts is not None:
        factors[seen.cuts] = 0
    product = np.ones(carried.shape[1:])
    carousel = np.zeros(len(carried))
    for t, rows in reversed(list(seen.steps())):
        carousel[t] = product[rows].mean() if rows.size else 0
        product[rows] *= factors[t, rows]
    if not seen.live.any():
        return carousel, math.nan
    with quiet():
        log = float(np.log(np.abs(carried[seen.live])).mean())
    return carousel, math.inf if log >= 0 else math.log(0.5) / log


def total_of_cell(seen: Seen, d_hidden: np.ndarray, d_cell: np.ndarray) -> np.ndarray:
    """An LSTM's dL/dc_t with the way through h_t of the same step; `d_cell` is without it.

    h = o ψ(c), with layer norm o ψ(LN(c) gain + bias); o depends on c by its peephole.
    """
    variant, get = seen.cell.variant, seen.parameters.get
    of_hidden, of_cell = seen.zoneout
    if of_cell:  # h depends on the new cell before zoneout, which is not c
        return d_cell
    dtype = d_cell.dtype
    d_hidden = d_hidden * dtype.type(1 - of_hidden)
    if "weight_hr" in seen.parameters:
        d_hidden = d_hidden @ seen.parameters["weight_hr"]
    argument = seen.states[1]
    if variant.layer_norm:
        gain, bias = seen.parameters["weight_ln_c"], get("bias_ln_c", dtype.type(0))
        normal, scale = standardize(argument)
        argument = normal * gain + bias
    output_gate = seen.saved[0][:, :, 3]
    output: Activation = variant.activations[2]
    d_argument = d_hidden * output_gate * activation_slope(*output, argument)
    if variant.layer_norm:
        d_argument = standardize_backward(d_argument * gain, normal, scale)
    total: np.ndarray = d_cell + d_argument
    if variant.peepholes:
        slope = output_gate * (1 - output_gate)
        if variant.activations != Variant().activations or variant.clip is not None:
            slope = seen.saved[-1][:, :, 3]  # such cells save the gates' slopes last
        p_o = np.split(seen.parameters["weight_peephole"], 3)[2]
        total = total + d_hidden * activate(*output, argument) * slope * p_o
    return total
