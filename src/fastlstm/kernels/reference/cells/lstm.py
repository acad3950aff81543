"""The plain LSTM. `fastlstm.kernels.reference` has its equations."""

import numpy as np

from fastlstm.kernels.arguments import Array, LSTMWeights, Masks
from fastlstm.kernels.reference.cells.weights import read_array, read_biases, read_hidden_size
from fastlstm.kernels.reference.core.activations import sigmoid, tanh
from fastlstm.kernels.reference.core.cell import Parts, Term


class LSTM:
    """A plain LSTM cell; if there is a W_hr, with the projection h' = W_hr (o * tanh(c')).

    In training, R multiplies h times `masks.recurrent`. Flags of zoneout are ignored.
    """

    def __init__(self, weights: LSTMWeights):
        self.dtype = weights.W_ih.dtype
        H = P = read_hidden_size(weights, 4)
        self.projection = None
        if weights.W_hr is not None:
            P = len(weights.W_hr)
            self.projection = read_array("W_hr", weights.W_hr, (P, H), self.dtype)
        self.inputs, self.sizes = weights.W_ih.shape[1], (P, H)
        self.W = read_array("W_ih", weights.W_ih, (4 * H, self.inputs), self.dtype)
        self.R = read_array("W_hh", weights.W_hh, (4 * H, P), self.dtype)
        bias_ih, bias_hh = read_biases(weights, 4 * H)
        self.bias = bias_ih + bias_hh
        self.names: tuple[str, ...] = ("weight_ih", "weight_hh")
        if weights.bias_ih is not None:
            self.names += ("bias_ih", "bias_hh")
        if weights.W_hr is not None:
            self.names += ("weight_hr",)

    def step(self, x: Array, state: Parts, masks: Masks | None) -> tuple[Parts, Parts]:
        h, c = state
        z = x @ self.W.T + drop(h, masks) @ self.R.T + self.bias
        z_input, z_forget, z_candidate, z_output = np.split(z, 4, axis=1)

        input_gate = sigmoid(z_input)
        forget_gate = sigmoid(z_forget)
        candidate = tanh(z_candidate)
        output_gate = sigmoid(z_output)
        cell = forget_gate * c + input_gate * candidate
        hidden = output_gate * tanh(cell)

        gates = np.stack([input_gate, forget_gate, candidate, output_gate], axis=1)
        if self.projection is None:
            return (hidden, cell), (gates, cell)
        return (hidden @ self.projection.T, cell), (gates, cell, hidden)

    def step_backward(
        self, x: Array, state: Parts, saved: Parts, d_state: Parts, masks: Masks
    ) -> tuple[Array, Parts, dict[str, Term]]:
        h, c = state
        d_hidden, d_cell = d_state
        gates, cell, *hidden = saved
        input_gate, forget_gate, candidate, output_gate = np.moveaxis(gates, 1, 0)
        squashed = tanh(cell)
        terms: dict[str, Term] = {}

        if self.projection is not None:
            terms["weight_hr"] = d_hidden, hidden[0]
            d_hidden = d_hidden @ self.projection
        d_cell = d_cell + d_hidden * output_gate * (1 - squashed * squashed)
        d_input = d_cell * candidate * input_gate * (1 - input_gate)
        d_forget = d_cell * c * forget_gate * (1 - forget_gate)
        d_candidate = d_cell * input_gate * (1 - candidate * candidate)
        d_output = d_hidden * squashed * output_gate * (1 - output_gate)
        d_cell = d_cell * forget_gate  # the carousel: dc'/dc = f

        dz = np.concatenate([d_input, d_forget, d_candidate, d_output], axis=1)
        terms["weight_ih"] = dz, x
        terms["weight_hh"] = dz, drop(h, masks)
        terms["bias_ih"] = terms["bias_hh"] = dz
        return dz @ self.W, (drop(dz @ self.R, masks), d_cell), terms


def drop(h: Array, masks: Masks | None) -> Array:
    """h times the factors of recurrent dropout, or the gradient of h times the same factors.

    A dropped number gives 0, even if it is inf or NaN.
    """
    if masks is None or masks.recurrent is None:
        return h
    return np.where(masks.recurrent > 0, h * masks.recurrent, np.zeros_like(h))
