"""The LSTM cell with everything that can vary about it.

With clip, peepholes p, the three activations σ (gates), φ (candidate) and ψ (output), the equations
of `fastlstm.kernels.reference` become

    i = σ(clip(z_i + p_i * c))
    f = σ(clip(z_f + p_f * c))          coupled: f = 1 - i
    g = φ(clip(z_g))
    c~ = f * c + i * g
    o = σ(clip(z_o + p_o * c~))
    h~ = o * ψ(c~)                      layer norm: o * ψ(LN(c~) * gain + bias)
    c' = m_c * c + (1 - m_c) * c~       zoneout; without it, m = 0
    h' = m_h * h + (1 - m_h) * h~       h~ as projected, where it is

where the preactivations are z = W x + R (d * h) + b, with d the recurrent dropout's factors, and
with layer norm z = LN(W x) * gain + LN(R (d * h)) * gain' + b, in which LN(a) = (a - mean(a)) /
sqrt(variance(a) + 1e-5) over the units of each gate.

Sources: Gers, Schraudolph & Schmidhuber 2002, JMLR 3, for peepholes; Greff et al. 2017, IEEE TNNLS
28(10), for coupled gates; Ba, Kiros & Hinton 2016, arXiv 1607.06450, for layer norm; Krueger et al.
2017, ICLR, for zoneout; Gal & Ghahramani 2016, NIPS, for one mask per sequence; the ONNX
specification's LSTM for clip and the activations.
"""

from typing import NamedTuple

import numpy as np

from fastlstm.kernels.reference.activations import activate, activation_slope
from fastlstm.kernels.reference.walk import Array, before, cut, ended, quiet, steps

EPSILON = 1e-5  # of layer norm's variance
INPUT_GAIN, HIDDEN_GAIN, GATE_BIAS = slice(0, 4), slice(4, 8), slice(8, 12)  # rows of `norm`
CELL_GAIN, CELL_BIAS, NORM_ROWS = 12, 13, 14


@quiet
def lstm_general_forward(
    x: Array,  # [T, B, I]
    packed: Array,  # from pack_gates; its bias is zero with a norm
    projection: Array | None,  # from pack(W_hr [P, H]), or None
    h0: Array,  # [B, P]
    c0: Array,  # [B, H]
    y: Array,  # OUT [T, B, P]
    h_n: Array,  # OUT [B, P]
    c_n: Array,  # OUT [B, H]
    activations: Array,  # [3, 3]: kind, alpha and beta of gates, candidate and output
    clip: float,  # infinite for none
    coupled: bool,
    peepholes: Array | None = None,  # [3, H]: i, f, o
    norm: Array | None = None,  # [14, H]: gains of W x (i, f, g, o), of R h, biases, c's gain, bias
    zoneout_h: float = 0,  # the share of the state before that is kept where there are no flags
    zoneout_c: float = 0,
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    gates: Array | None = None,  # OUT [T, B, 4, H]: z without peepholes; with a norm, LN(W x)
    cells: Array | None = None,  # OUT [T, B, H]
    hidden: Array | None = None,  # OUT [T, B, H]: h~ where a projection hides it
    kept_h: Array | None = None,  # bool [T, B, P]: which of h zoneout keeps
    kept_c: Array | None = None,  # bool [T, B, H]
    mask: Array | None = None,  # [B, P]: recurrent dropout's factors
    masked: Array | None = None,  # OUT [T, B, P]: what R met, with a mask
    recurrent_gates: Array | None = None,  # OUT [T, B, 4, H]: LN(R h), with a norm
    scales: Array | None = None,  # OUT [T, B, 2, 4]: 1 / sqrt(variance + ε) of W x and R h
) -> None:
    """One layer in one direction over the whole sequence."""
    inputs, H = x.shape[2], c0.shape[1]
    bias, W, R = packed[:, 0], packed[:, 1 : 1 + inputs], packed[:, 1 + inputs :].T
    from_input = x @ W.T + bias
    all_rows = slice(None) if rows is None else rows
    h_n[all_rows], c_n[all_rows] = h0[all_rows], c0[all_rows]

    for t, now in steps(len(x), rows, live, reverse):
        h_before, c_before = cut(h_n[now], c_n[now], resets, t, now)
        met = h_before
        if mask is not None and masked is not None:
            masked[t, now] = met = h_before * mask[now]
        z = from_input[t, now].reshape(-1, 4, H)
        z_recurrent = (met @ R).reshape(-1, 4, H)
        if norm is None:
            z = z + z_recurrent
            if gates is not None:
                gates[t, now] = z
        else:
            z, scale_input = _standardise(z)
            z_recurrent, scale_recurrent = _standardise(z_recurrent)
            if gates is not None and recurrent_gates is not None and scales is not None:
                gates[t, now], recurrent_gates[t, now] = z, z_recurrent
                scales[t, now, 0], scales[t, now, 1] = scale_input, scale_recurrent
            z = z * norm[INPUT_GAIN] + z_recurrent * norm[HIDDEN_GAIN] + norm[GATE_BIAS]

        cell = _cell(z, c_before, activations, clip, coupled, peepholes)
        shown = cell.c
        if norm is not None:
            shown = _standardise(cell.c)[0] * norm[CELL_GAIN] + norm[CELL_BIAS]
        h = cell.o * activate(*_arguments(activations[2]), shown)
        c = _zoned(c_before, cell.c, kept_c, zoneout_c, t, now)
        if hidden is not None:
            hidden[t, now] = h
        if projection is not None:
            h = h @ projection.T
        h = _zoned(h_before, h, kept_h, zoneout_h, t, now)
        if cells is not None:
            cells[t, now] = c
        y[t, now] = h_n[now] = h
        c_n[now] = c
        y[t, ended(rows, live, t)] = 0


@quiet
def lstm_general_backward(
    gates: Array,  # IN what the forward kept; OUT [T, B, 4, H]: gradients of W x
    cells: Array,  # [T, B, H]
    c0: Array,  # [B, H]
    dy: Array,  # [T, B, P]
    dh: Array,  # IN [B, P]: gradient of h_n; OUT: of h0
    dc: Array,  # IN [B, H]: gradient of c_n; OUT: of c0
    recurrent: Array,  # from pack(W_hhᵀ [P, 4H])
    projection: Array | None,  # from pack(W_hrᵀ [H, P]), or None
    activations: Array,  # from here as in the forward
    clip: float,
    coupled: bool,
    peepholes: Array | None = None,
    norm: Array | None = None,
    rows: Array | None = None,
    live: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
    dprojected: Array | None = None,  # OUT [T, B, P]: gradient of every step's projection
    kept_h: Array | None = None,
    kept_c: Array | None = None,
    mask: Array | None = None,
    recurrent_gates: Array | None = None,  # IN what the forward kept; OUT gradients of R h
    scales: Array | None = None,
    d_peepholes: Array | None = None,  # [B, 3, H]: gradients of every row, added to
    d_norm: Array | None = None,  # [B, 14, H]: likewise
) -> None:
    """Back through time: the gradients of every gate, vector and of the initial state."""
    c_befores = before(cells, c0, rows, live, resets, reverse)
    for t, now in reversed(list(steps(len(gates), rows, live, reverse))):
        c_before = c_befores[t, now]
        z = gates[t, now]
        if norm is not None and recurrent_gates is not None:
            z = z * norm[INPUT_GAIN] + norm[GATE_BIAS]
            z += recurrent_gates[t, now] * norm[HIDDEN_GAIN]
        cell = _cell(z, c_before, activations, clip, coupled, peepholes)
        argument = normal = cell.c
        if norm is not None:
            normal, scale = _standardise(cell.c)
            argument = normal * norm[CELL_GAIN] + norm[CELL_BIAS]
        output = _arguments(activations[2])

        d_h = dy[t, now] + dh[now]
        d_h_past = 0 if kept_h is None else d_h * kept_h[t, now]
        d_hidden = d_h - d_h_past
        if projection is not None and dprojected is not None:
            dprojected[t, now] = d_hidden
            d_hidden = d_hidden @ projection.T
        d_output = d_hidden * activate(*output, argument) * cell.slopes[:, 3]
        d_argument = d_hidden * cell.o * activation_slope(*output, argument)
        if norm is not None and d_norm is not None:
            d_norm[now, CELL_BIAS] += d_argument
            d_norm[now, CELL_GAIN] += d_argument * normal
            d_argument = _standardise_backward(d_argument * norm[CELL_GAIN], normal, scale)

        d_c_past = 0 if kept_c is None else dc[now] * kept_c[t, now]
        d_c = dc[now] - d_c_past + d_argument
        if peepholes is not None:
            d_c = d_c + d_output * peepholes[2]
        d_forget = d_c * c_before
        d_input = d_c * cell.g
        if coupled:
            d_input = d_input - d_forget
        d_input = d_input * cell.slopes[:, 0]
        d_forget = d_forget * cell.slopes[:, 1]
        d_candidate = d_c * cell.i * cell.slopes[:, 2]
        d_c = d_c * cell.f + d_c_past
        if peepholes is not None and d_peepholes is not None:
            d_c += d_input * peepholes[0] + d_forget * peepholes[1]
            d_peepholes[now, 0] += d_input * c_before
            d_peepholes[now, 1] += d_forget * c_before
            d_peepholes[now, 2] += d_output * cell.c

        dz = d_z = np.stack([d_input, d_forget, d_candidate, d_output], axis=1)
        if (
            norm is not None
            and d_norm is not None
            and recurrent_gates is not None
            and scales is not None
        ):
            d_norm[now, GATE_BIAS] += d_z
            for part, array, gain in (
                (0, gates, INPUT_GAIN),
                (1, recurrent_gates, HIDDEN_GAIN),
            ):
                normal = array[t, now]
                d_norm[now, gain] += d_z * normal
                dz = _standardise_backward(d_z * norm[gain], normal, scales[t, now, part])
                array[t, now] = dz
        else:
            gates[t, now] = dz
        d_met = dz.reshape(-1, len(recurrent.T)) @ recurrent.T
        if mask is not None:
            d_met = d_met * mask[now]
        dh[now], dc[now] = cut(d_met + d_h_past, d_c, resets, t, now)


class Cell(NamedTuple):
    """One step of some rows, each [n, H]."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array  # before zoneout
    slopes: Array  # [n, 4, H]: of i, f, g, o by their preactivations


def _cell(
    z: Array,  # [n, 4, H]
    c_before: Array,
    activations: Array,
    clip: float,
    coupled: bool,
    peepholes: Array | None,
) -> Cell:
    z_input, z_forget, z_candidate, z_output = np.moveaxis(z, 1, 0)
    if peepholes is not None:
        z_input = z_input + peepholes[0] * c_before
        z_forget = z_forget + peepholes[1] * c_before
    i, i_slope = _clipped(activations[0], clip, z_input)
    f, f_slope = _clipped(activations[0], clip, z_forget)
    if coupled:
        f, f_slope = 1 - i, np.zeros_like(i)
    g, g_slope = _clipped(activations[1], clip, z_candidate)
    c = f * c_before + i * g
    if peepholes is not None:
        z_output = z_output + peepholes[2] * c
    o, o_slope = _clipped(activations[0], clip, z_output)
    return Cell(i, f, g, o, c, np.stack([i_slope, f_slope, g_slope, o_slope], axis=1))


def _arguments(activation: Array) -> tuple[int, float, float]:
    return int(activation[0]), activation[1], activation[2]


def _clipped(activation: Array, clip: float, z: Array) -> tuple[Array, Array]:
    """The activation of a clipped z, and its slope by z."""
    inside = np.clip(z, -clip, clip)
    slope = activation_slope(*_arguments(activation), inside)
    return activate(*_arguments(activation), inside), np.where(np.abs(z) > clip, 0, slope)


def _zoned(
    before: Array, fresh: Array, kept: Array | None, share: float, t: int, now: Array | slice
) -> Array:
    """Zoneout: `before` where kept; without flags, the expectation of it."""
    if kept is not None:
        return np.where(kept[t, now], before, fresh)
    return fresh if share == 0 else np.asarray(share * before + (1 - share) * fresh)


def _standardise(x: Array) -> tuple[Array, Array]:
    """(x - mean) / sqrt(variance + ε) over the last axis, and what it was scaled by."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=-1) + x.dtype.type(EPSILON))
    return centred * scale[..., None], scale


def _standardise_backward(dy: Array, y: Array, scale: Array) -> Array:
    """The gradient of what `_standardise` took, from that of what it gave."""
    along = y * (dy * y).mean(axis=-1, keepdims=True)
    return np.asarray((dy - dy.mean(axis=-1, keepdims=True) - along) * scale[..., None])
