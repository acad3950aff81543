"""The LSTM cell with all its variants.

With clip, peepholes p, the three activations σ (gates), φ (candidate) and ψ (output), the equations
of `fastlstm.kernels.reference` become

    i = σ(clip(z_i + p_i * c))
    f = σ(clip(z_f + p_f * c))          coupled: f = 1 - i
    g = φ(clip(z_g))
    c~ = f * c + i * g
    o = σ(clip(z_o + p_o * c~))
    h~ = o * ψ(c~)                      layer norm: o * ψ(LN(c~) * gain + bias)
    c' = m_c * c + (1 - m_c) * c~       zoneout; without it, m = 0
    h' = m_h * h + (1 - m_h) * h~       with a projection, W_hr h~ in place of h~

where the preactivations are z = W x + R (d * h) + b, and d is the factors of recurrent dropout.
With layer norm they are z = LN(W x) * gain + LN(R (d * h)) * gain' + b, where LN(a) =
(a - mean(a)) / sqrt(variance(a) + 1e-5) over the units of each gate.

Sources: Gers, Schraudolph & Schmidhuber 2002, JMLR 3, for peepholes; Greff et al. 2017, IEEE TNNLS
28(10), for coupled gates; Ba, Kiros & Hinton 2016, arXiv 1607.06450, for layer norm; Krueger et al.
2017, ICLR, for zoneout; Gal & Ghahramani 2016, NIPS, for one mask per sequence; the ONNX
specification's LSTM for clip and the activations.
"""

import numpy as np

from fastlstm.kernels.arguments import Array, Kind, LayerNorm, LSTMOptions, LSTMWeights, Masks
from fastlstm.kernels.reference.cells.lstm import LSTM, drop
from fastlstm.kernels.reference.cells.weights import read_array
from fastlstm.kernels.reference.core.activations import (
    activate,
    activate_clipped,
    activation_slope,
    check_kind,
    slope_clipped,
)
from fastlstm.kernels.reference.core.cell import Parts, Term
from fastlstm.kernels.reference.core.layer_norm import standardize, standardize_backward

# gates [T, B, 4, H]: i, f, g, o. cells [T, B, H]: c'.
# Only with a projection: hidden [T, B, H], h~ before the projection.
# Only with layer norm: normal_x and normal_h [T, B, 4, H], LN(W x) and LN(R (d * h)); scales
# [T, B, 2, 4], 1 / sqrt(variance + ε) of these two.
# Only with clip or activations other than sigmoid, tanh, tanh: slopes [T, B, 4, H], the slopes of
# i, f, g, o by their preactivations.
SAVED = ("gates", "cells", "hidden", "normal_x", "normal_h", "scales", "slopes")


def pack_lstm(weights: LSTMWeights, options: LSTMOptions, backward: bool = False) -> LSTM:
    """Pack an LSTM's weights and options for `stack`: as a plain cell if they are those of one.

    `backward` has no effect: a cell in Python always serves for forward and backward.
    """
    for activation in options[:3]:
        check_kind(activation)
    is_plain = (
        weights.peepholes is None
        and weights.norm is None
        and _slopes_are_in_gates(options)
        and not (options.coupled or options.zoneout_h or options.zoneout_c)
    )
    return LSTM(weights) if is_plain else LSTMVariant(weights, options)


class LSTMVariant(LSTM):
    """An LSTM cell of the equations at the head of this file.

    In inference, m_h and m_c are `zoneout_h` and `zoneout_c` of the options. In training, they are
    the flags `kept_h` and `kept_c` of the masks, or 0 without flags.
    """

    def __init__(self, weights: LSTMWeights, options: LSTMOptions):
        super().__init__(weights)
        self.options = options._replace(clip=float(options.clip))
        H = self.sizes[1]
        self.peepholes = self.norm = None
        if weights.peepholes is not None:
            peepholes = read_array("peepholes", weights.peepholes, (3 * H,), self.dtype)
            self.peepholes = peepholes.reshape(3, H)
            self.names += ("weight_peephole",)
        if weights.norm is not None:
            self.norm = _read_norm(weights.norm, H, self.dtype)
            self.names += ("weight_ln_ih", "weight_ln_hh", "weight_ln_c")
            if weights.norm.cell_bias is not None:
                self.names += ("bias_ln_c",)
        conditions = {
            "hidden": self.projection is not None,
            "normal_x": self.norm is not None,
            "normal_h": self.norm is not None,
            "scales": self.norm is not None,
            "slopes": not _slopes_are_in_gates(options),
        }
        self.saved = tuple(name for name in SAVED if conditions.get(name, True))

    def step(self, x: Array, state: Parts, masks: Masks | None) -> tuple[Parts, Parts]:
        h_before, c_before = state
        gate, candidate_activation, _, clip, *_ = self.options
        values: dict[str, Array] = {}
        z = self._preactivations(x, drop(h_before, masks), values)
        z_input, z_forget, z_candidate, z_output = np.moveaxis(z, 1, 0)
        if self.peepholes is not None:
            z_input = z_input + self.peepholes[0] * c_before
            z_forget = z_forget + self.peepholes[1] * c_before

        input_gate = activate_clipped(gate, clip, z_input)
        forget_gate = activate_clipped(gate, clip, z_forget)
        if self.options.coupled:
            forget_gate = 1 - input_gate
        candidate = activate_clipped(candidate_activation, clip, z_candidate)
        cell = forget_gate * c_before + input_gate * candidate
        if self.peepholes is not None:
            z_output = z_output + self.peepholes[2] * cell
        output_gate = activate_clipped(gate, clip, z_output)
        hidden = output_gate * activate(*self.options.output, self._normalized(cell)[0])

        h = hidden if self.projection is None else hidden @ self.projection.T
        kept_h, kept_c = self._zoneout(masks)
        h = _keep(h_before, h, kept_h)
        c = _keep(c_before, cell, kept_c)

        values["gates"] = np.stack([input_gate, forget_gate, candidate, output_gate], axis=1)
        values["cells"], values["hidden"] = c, hidden
        if "slopes" in self.saved:
            slopes = [
                slope_clipped(gate, clip, z_input),
                slope_clipped(gate, clip, z_forget),
                slope_clipped(candidate_activation, clip, z_candidate),
                slope_clipped(gate, clip, z_output),
            ]
            values["slopes"] = self._coupled(np.stack(slopes, axis=1))
        return (h, c), tuple(values[name] for name in self.saved)

    def step_backward(
        self, x: Array, state: Parts, saved: Parts, d_state: Parts, masks: Masks
    ) -> tuple[Array, Parts, dict[str, Term]]:
        h_before, c_before = state
        d_h, d_c = d_state
        values = dict(zip(self.saved, saved, strict=True))
        gates = values["gates"]
        slopes = values["slopes"] if "slopes" in values else self._slopes(gates)
        cell = gates[:, 1] * c_before + gates[:, 0] * gates[:, 2]
        output = self.options.output
        terms: dict[str, Term] = {}

        d_h_before, d_hidden = _split_kept(d_h, masks.kept_h)
        if self.projection is not None:
            terms["weight_hr"] = d_hidden, values["hidden"]
            d_hidden = d_hidden @ self.projection
        d_c_before, d_cell = _split_kept(d_c, masks.kept_c)
        if self.norm is None and (masks.kept_h is not None or masks.kept_c is not None):
            reached = (d_hidden != 0) | (d_cell != 0)  # numbers of other units may be inf or NaN
            zero, by_gate = self.dtype.type(0), reached[:, None]
            cell, c_before = np.where(reached, cell, zero), np.where(reached, c_before, zero)
            gates, slopes = np.where(by_gate, gates, zero), np.where(by_gate, slopes, zero)
        input_gate, forget_gate, candidate, output_gate = np.moveaxis(gates, 1, 0)
        input_slope, forget_slope, candidate_slope, output_slope = np.moveaxis(slopes, 1, 0)
        argument, normal_cell, cell_scale = self._normalized(cell)
        d_output = d_hidden * activate(*output, argument) * output_slope
        d_argument = d_hidden * output_gate * activation_slope(*output, argument)
        if self.norm is not None:
            terms["weight_ln_c"] = d_argument * normal_cell
            terms["bias_ln_c"] = d_argument
            d_argument = d_argument * self.norm.cell_gain
            d_argument = standardize_backward(d_argument, normal_cell, cell_scale)

        d_cell = d_cell + d_argument
        if self.peepholes is not None:
            d_cell = d_cell + d_output * self.peepholes[2]
        d_input = d_cell * candidate
        d_forget = d_cell * c_before
        if self.options.coupled:
            d_input = d_input - d_forget
        d_input = d_input * input_slope
        d_forget = d_forget * forget_slope
        d_candidate = d_cell * input_gate * candidate_slope
        d_c_before = d_c_before + d_cell * forget_gate
        if self.peepholes is not None:
            d_c_before = d_c_before + d_input * self.peepholes[0] + d_forget * self.peepholes[1]
            d_peepholes = [d_input * c_before, d_forget * c_before, d_output * cell]
            terms["weight_peephole"] = np.concatenate(d_peepholes, axis=1)

        dz = np.concatenate([d_input, d_forget, d_candidate, d_output], axis=1)
        terms["bias_ih"] = terms["bias_hh"] = dz
        dz_x, dz_h = self._preactivations_backward(dz, values, terms)
        terms["weight_ih"] = dz_x, x
        terms["weight_hh"] = dz_h, drop(h_before, masks)
        d_h_before = d_h_before + drop(dz_h @ self.R, masks)
        return dz_x @ self.W, (d_h_before, d_c_before), terms

    def _preactivations(self, x: Array, h: Array, values: dict[str, Array]) -> Array:
        """z [n, 4, H], without peepholes. Arrays that layer norm saves are put into `values`."""
        by_gate = -1, 4, self.sizes[1]
        z_x, z_h = (x @ self.W.T).reshape(by_gate), (h @ self.R.T).reshape(by_gate)
        if self.norm is not None:
            z_x, scale_x = standardize(z_x)
            z_h, scale_h = standardize(z_h)
            values["normal_x"], values["normal_h"] = z_x, z_h
            values["scales"] = np.stack([scale_x, scale_h], axis=1)
            z_x = z_x * self.norm.input_gain.reshape(by_gate)
            z_h = z_h * self.norm.hidden_gain.reshape(by_gate)
        return np.asarray(z_x + z_h + self.bias.reshape(by_gate))

    def _preactivations_backward(
        self, dz: Array, values: dict[str, Array], terms: dict[str, Term]
    ) -> tuple[Array, Array]:
        """Gradients of W x and R (d * h), each [n, 4H]; those of gains are put into `terms`."""
        if self.norm is None:
            return dz, dz
        gradients = []
        for part, gain, normal, name in (
            (0, self.norm.input_gain, values["normal_x"], "weight_ln_ih"),
            (1, self.norm.hidden_gain, values["normal_h"], "weight_ln_hh"),
        ):
            terms[name] = dz * normal.reshape(dz.shape)
            d_normal = (dz * gain).reshape(normal.shape)
            d_product = standardize_backward(d_normal, normal, values["scales"][:, part])
            gradients.append(d_product.reshape(dz.shape))
        return gradients[0], gradients[1]

    def _normalized(self, cell: Array) -> tuple[Array, Array, Array]:
        """The argument of ψ; with layer norm, also LN(cell) and its scale."""
        if self.norm is None:
            return cell, cell, cell
        normal, scale = standardize(cell)
        argument = normal * self.norm.cell_gain
        if self.norm.cell_bias is not None:
            argument = argument + self.norm.cell_bias
        return argument, normal, scale

    def _slopes(self, gates: Array) -> Array:
        """Slopes [n, 4, H] of sigmoid and tanh, from their values."""
        slopes = gates * (1 - gates)
        slopes[:, 2] = 1 - gates[:, 2] * gates[:, 2]
        return self._coupled(slopes)

    def _coupled(self, slopes: Array) -> Array:
        """Set the slope of a coupled forget gate to 0: its own preactivation has no effect."""
        if self.options.coupled:
            slopes[:, 1] = 0
        return slopes

    def _zoneout(self, masks: Masks | None) -> tuple[Array | float | None, Array | float | None]:
        """For h and for c: flags of the units kept (training) or the fraction kept (inference)."""
        if masks is not None:
            return masks.kept_h, masks.kept_c
        return self.options.zoneout_h or None, self.options.zoneout_c or None


def _keep(before: Array, after: Array, kept: Array | float | None) -> Array:
    if kept is None:
        return after
    if isinstance(kept, np.ndarray):
        return np.where(kept, before, after)
    if kept == 1:
        return before
    return np.asarray(kept * before + (1 - kept) * after)


def _split_kept(d: Array, kept: Array | None) -> tuple[Array, Array]:
    """The gradients of `before` and `after` in `_keep`, from that of its result."""
    if kept is None:
        return np.zeros_like(d), d
    zeros = np.zeros_like(d)
    return np.where(kept, d, zeros), np.where(kept, zeros, d)


def _slopes_are_in_gates(options: LSTMOptions) -> bool:
    """Whether the slopes of the activations can be computed from the saved gates."""
    kinds = tuple(activation.kind for activation in options[:3])
    return kinds == (Kind.SIGMOID, Kind.TANH, Kind.TANH) and np.isinf(options.clip)


def _read_norm(norm: LayerNorm, H: int, dtype: np.dtype) -> LayerNorm:
    bias = norm.cell_bias
    return LayerNorm(
        read_array("norm.input_gain", norm.input_gain, (4 * H,), dtype),
        read_array("norm.hidden_gain", norm.hidden_gain, (4 * H,), dtype),
        read_array("norm.cell_gain", norm.cell_gain, (H,), dtype),
        None if bias is None else read_array("norm.cell_bias", bias, (H,), dtype),
    )
