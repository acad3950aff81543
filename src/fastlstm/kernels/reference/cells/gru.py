"""The gated recurrent unit (Cho et al. 2014, "Learning phrase representations", eq. 5 to 8).

It has no cell state: h itself is the carousel. The *update gate* z is the fraction of h that a step
keeps. The *reset gate* r is the fraction of h that enters the candidate n. The order of gates is
torch's, r, z, n:

    r  = sigmoid(W_r x + R_r h + b_r)
    z  = sigmoid(W_z x + R_z h + b_z)
    n  = tanh(W_n x + b_in + R_n (r * h) + b_hn)      as published
    n  = tanh(W_n x + b_in + r * (R_n h + b_hn))      linear_before_reset, torch's
    h' = (1 - z) * n + z * h
"""

import numpy as np

from fastlstm.kernels.arguments import Array, GRUOptions, GRUWeights, Kind, Masks
from fastlstm.kernels.reference.cells.weights import read_array, read_biases, read_hidden_size
from fastlstm.kernels.reference.core.activations import activate_clipped, check_kind, slope_clipped
from fastlstm.kernels.reference.core.cell import Parts, Term

# gates [T, B, 4, H]: r, z, n, and R_n h + b_hn (linear_before_reset) or r * h (as published).
# slopes [T, B, 3, H], only with clip or activations other than sigmoid and tanh: the slopes of
# r, z, n by their preactivations.
SAVED = ("gates", "slopes")


class GRU:
    """A GRU cell with any activations, whose arguments may be clipped."""

    def __init__(self, weights: GRUWeights, options: GRUOptions):
        for activation in options[:2]:
            check_kind(activation)
        self.options = options._replace(clip=float(options.clip))
        self.dtype = weights.W_ih.dtype
        H = read_hidden_size(weights, 3)
        self.inputs, self.sizes = weights.W_ih.shape[1], (H,)
        self.W = read_array("W_ih", weights.W_ih, (3 * H, self.inputs), self.dtype)
        R = read_array("W_hh", weights.W_hh, (3 * H, H), self.dtype)
        self.R_gates, self.R_candidate = R[: 2 * H], R[2 * H :]
        bias_ih, bias_hh = read_biases(weights, 3 * H)
        self.bias = bias_ih
        self.bias[: 2 * H] += bias_hh[: 2 * H]
        self.recurrent_bias = bias_hh[2 * H :]
        self.names: tuple[str, ...] = ("weight_ih", "weight_hh")
        if weights.bias_ih is not None:
            self.names += ("bias_ih", "bias_hh")
        kinds = options.gate.kind, options.candidate.kind
        self.saves_slopes = kinds != (Kind.SIGMOID, Kind.TANH) or np.isfinite(options.clip)

    def step(self, x: Array, state: Parts, masks: Masks | None) -> tuple[Parts, Parts]:
        (h,) = state
        gate, candidate_activation, clip, linear_before_reset = self.options
        z_reset, z_update, z_candidate = np.split(x @ self.W.T + self.bias, 3, axis=1)
        h_reset, h_update = np.split(h @ self.R_gates.T, 2, axis=1)
        z_reset = z_reset + h_reset
        z_update = z_update + h_update

        reset_gate = activate_clipped(gate, clip, z_reset)
        update_gate = activate_clipped(gate, clip, z_update)
        if linear_before_reset:
            fourth = h @ self.R_candidate.T + self.recurrent_bias
            z_candidate = z_candidate + reset_gate * fourth
        else:
            fourth = reset_gate * h
            z_candidate = z_candidate + (fourth @ self.R_candidate.T + self.recurrent_bias)
        candidate = activate_clipped(candidate_activation, clip, z_candidate)
        hidden = (1 - update_gate) * candidate + update_gate * h

        gates = np.stack([reset_gate, update_gate, candidate, fourth], axis=1)
        if not self.saves_slopes:
            return (hidden,), (gates,)
        slopes = [
            slope_clipped(gate, clip, z_reset),
            slope_clipped(gate, clip, z_update),
            slope_clipped(candidate_activation, clip, z_candidate),
        ]
        return (hidden,), (gates, np.stack(slopes, axis=1))

    def step_backward(
        self, x: Array, state: Parts, saved: Parts, d_state: Parts, masks: Masks
    ) -> tuple[Array, Parts, dict[str, Term]]:
        (h,) = state
        (d_hidden,) = d_state
        reset_gate, update_gate, candidate, fourth = np.moveaxis(saved[0], 1, 0)
        if self.saves_slopes:
            reset_slope, update_slope, candidate_slope = np.moveaxis(saved[1], 1, 0)
        else:
            reset_slope = reset_gate * (1 - reset_gate)
            update_slope = update_gate * (1 - update_gate)
            candidate_slope = 1 - candidate * candidate

        d_candidate = d_hidden * (1 - update_gate) * candidate_slope
        d_update = d_hidden * (h - candidate) * update_slope
        d_h = d_hidden * update_gate
        if self.options.linear_before_reset:
            d_reset = d_candidate * fourth * reset_slope
            d_recurrent = d_candidate * reset_gate  # the gradient of R_n h + b_hn
            d_h = d_h + d_recurrent @ self.R_candidate
            candidate_factors = d_recurrent, h
        else:
            d_recurrent = d_candidate  # the gradient of R_n (r * h) + b_hn
            d_reset_hidden = d_candidate @ self.R_candidate
            d_reset = d_reset_hidden * h * reset_slope
            d_h = d_h + d_reset_hidden * reset_gate
            candidate_factors = d_recurrent, fourth
        d_gates = np.concatenate([d_reset, d_update], axis=1)
        d_h = d_h + d_gates @ self.R_gates

        dz = np.concatenate([d_gates, d_candidate], axis=1)
        terms: dict[str, Term] = {
            "weight_ih": (dz, x),
            "weight_hh": [(d_gates, h), candidate_factors],
            "bias_ih": dz,
            "bias_hh": np.concatenate([d_gates, d_recurrent], axis=1),
        }
        return dz @ self.W, (d_h,), terms


def pack_gru(weights: GRUWeights, options: GRUOptions, backward: bool = False) -> GRU:
    """Pack a GRU's weights and options for `stack`.

    `backward` has no effect: a cell in Python always serves for forward and backward.
    """
    return GRU(weights, options)
