# How LSTM cells are packed. This is the only file that chooses between plain cell and variants.

def pack_lstm(weights, options, bint backward=False):
    """Pack an LSTM's weights and options for `stack`: see fastlstm/kernels/arguments.py.

    With `backward`, the cell serves for forward and backward; without it, for forward only.
    """
    W, R, bias_ih, bias_hh, projection, peepholes, norm = tuple(weights)
    gate, candidate, output, clip, coupled, zoneout_h, zoneout_c = tuple(options)
    cdef Py_ssize_t H = _gate_size(W, 4), inputs = W.shape[1], P = R.shape[1]
    cdef Cell cell = _plain_cell(inputs, H, P, 4, bias_ih is not None)
    cdef Variant variant
    cdef bint plain, only_zoned
    cdef list arrays = []
    cdef Weights read = _read_weights(W, R, bias_ih, bias_hh, 4 * H, P)
    _expect(P == H or projection is not None, "W_hr")
    cell.states, cell.sizes[1] = 2, H
    memset(&variant, 0, sizeof(variant))
    variant.gate, variant.candidate = _read_activation(gate), _read_activation(candidate)
    variant.output, variant.coupled = _read_activation(output), coupled
    variant.clip = _number(clip)
    variant.zoneout_h, variant.zoneout_c = _number(zoneout_h), _number(zoneout_c)
    variant.usual = (
        variant.gate.kind == SIGMOID
        and variant.candidate.kind == TANH
        and variant.output.kind == TANH
        and variant.clip == <real> INFINITY
    )
    cell.zoned = zoneout_h > 0 or zoneout_c > 0
    plain = variant.usual and not coupled and peepholes is None and norm is None
    only_zoned = plain and cell.zoned and projection is None
    plain = plain and not cell.zoned
    _save_as(&cell, 4, H)
    _save_as(&cell, 0, H)
    if projection is not None:
        _expect_shape(projection, P, H, "W_hr")
        cell.weights += P * H
        cell.shared = H
        _save_as(&cell, 0, H)
        variant.projection_gradient = cell.gradients
        _learn(&cell, P, H)
    if peepholes is not None:
        _expect_shape(peepholes, 3 * H, 0, "peepholes")
        variant.peepholes = _vector(peepholes, arrays)
        variant.peephole_gradient = cell.gradients
        _learn(&cell, 3 * H, 0)
        cell.row_sums = 3 * H
    if norm is not None:
        _pack_norm(&cell, &variant, norm, bias_ih, bias_hh, H, arrays)
        read.bias_ih.axes = 0
    if not variant.usual:
        cell.slopes = cell.saved
        _save_as(&cell, 4, H)
    cell.panels = _panels(_pack_gates(&read, norm is None), arrays)

    cell.phase[0] = _lstm_gates if plain else _zoned_gates if only_zoned else _variant_gates
    cell.phases = 1
    if norm is not None:
        cell.phase[0], cell.phase[1], cell.phases = _norm_sums, _norm_cells, 2
    if projection is not None:
        cell.projection = _panels(pack(projection), arrays)
        cell.phase[cell.phases] = _project if plain else _variant_project
        cell.phases += 1
    if backward:
        _pack_lstm_backward(&cell, plain, norm is not None, W, R, projection, arrays)
    if backward and only_zoned:
        cell.back_phase[0] = _zoned_cells_backward
    return _new_cell(&cell, &variant, sizeof(variant), tuple(arrays))


cdef int _pack_norm(
    Cell* cell, Variant* variant, norm, bias_ih, bias_hh, Py_ssize_t H, list arrays
) except -1:
    """Add layer norm's vectors to the cell; the biases are added after the normalization."""
    input_gain, hidden_gain, cell_gain, cell_bias = tuple(norm)
    _expect_shape(input_gain, 4 * H, 0, "input_gain")
    _expect_shape(hidden_gain, 4 * H, 0, "hidden_gain")
    _expect_shape(cell_gain, H, 0, "cell_gain")
    _expect((cell_bias is None) == (bias_ih is None), "cell_bias")
    if cell_bias is not None:
        _expect_shape(cell_bias, H, 0, "cell_bias")
    variant.input_gain = _vector(input_gain, arrays)
    variant.hidden_gain = _vector(hidden_gain, arrays)
    variant.cell_gain = _vector(cell_gain, arrays)
    if bias_ih is None:
        zeros = np.zeros(4 * H, input_gain.dtype)
        variant.gate_bias = variant.cell_bias = _vector(zeros, arrays)
    else:
        variant.gate_bias = _vector(bias_ih + bias_hh, arrays)
        variant.cell_bias = _vector(cell_bias, arrays)
    variant.norm_gradient = cell.gradients
    _learn(cell, 4 * H, 0)
    _learn(cell, 4 * H, 0)
    _learn(cell, H, 0)
    if cell_bias is not None:
        _learn(cell, H, 0)
    variant.normal = cell.saved
    _save_as(cell, 4, H)
    _save_as(cell, 4, H)
    _save_as(cell, 2, 4)
    cell.shared += 2 * cell.blocks * PANEL
    cell.own = 2 * cell.blocks * V
    cell.d_input = variant.normal
    # For each row, gradients of: peepholes [3, H]; bias, input gain and hidden gain [4, H] each;
    # gain and bias of the cell [H] each.
    cell.row_sums = 17 * H
    return 0


cdef int _pack_lstm_backward(
    Cell* cell, bint plain, bint normal, W, R, projection, list arrays
) except -1:
    cdef BackwardPhase cells
    cell.transposed = _panels(pack(W.T), arrays)
    cell.recurrent[0] = _panels(pack(R.T), arrays)
    cell.sums, cell.after_sums = _variant_sums, _variant_after_sums
    cell.back_shared = cell.P + cell.H
    cell.back_phase[0], cell.back_phases = _output_backward, 1
    if projection is not None:
        cell.projection_transposed = _panels(pack(projection.T), arrays)
        cell.back_series = cell.P
        cell.back_phase[1], cell.back_phases = _projection_backward, 2
    if normal:
        cell.back_own = 3 * cell.blocks * V
        cells = _norm_cells_backward
    else:
        cells = _lstm_projected_cells_backward if plain else _variant_cells_backward
    if normal or projection is not None:
        cell.back_phase[cell.back_phases] = cells
        cell.back_phases += 1
    else:
        cell.back_phase[0] = _variant_output_and_cells_backward
    cell.back_phase[cell.back_phases] = _lstm_state_backward if plain else _variant_state_backward
    cell.back_phases += 1
    if plain and projection is None:
        cell.back_phase[0] = _lstm_cells_backward
        cell.sums, cell.after_sums, cell.back_shared = _lstm_sums, _copy_bias, 0
    return 0
