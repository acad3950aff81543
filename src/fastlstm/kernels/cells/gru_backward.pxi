# Both forms of the GRU, backward; and how a GRU is packed. Equations: reference/cells/gru.py.

cdef inline void _update_backward(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """Replace z and n by their gradients, and d of h by that of the h before, through z h alone."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit
    cdef real one = 1
    cdef real* gates = at.gates[s] + unit
    cdef real* d = at.d[0][s] + unit
    cdef vec update_gate = _load(gates + H, n), candidate = _load(gates + 2 * H, n)
    cdef vec dh = _load(d, n)
    cdef vec update_slope = _slope_of(f, at, s, 1, unit, update_gate * (one - update_gate))
    cdef vec candidate_slope = _slope_of(f, at, s, 2, unit, one - candidate * candidate)
    _store(gates + H, dh * (_load(at.before[0][s] + unit, n) - candidate) * update_slope, n)
    _store(gates + 2 * H, dh * (one - update_gate) * candidate_slope, n)
    _store(d, dh * update_gate, n)


cdef inline void _reset_after_backward(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """Replace r, and R_n h + b_hn, which r multiplied, by their gradients."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit
    cdef real one = 1
    cdef real* gates = at.gates[s] + unit
    cdef vec reset_gate = _load(gates, n), d_candidate = _load(gates + 2 * H, n)
    cdef vec slope = _slope_of(f, at, s, 0, unit, reset_gate * (one - reset_gate))
    _store(gates, d_candidate * _load(gates + 3 * H, n) * slope, n)
    _store(gates + 3 * H, d_candidate * reset_gate, n)


cdef inline void _reset_before_backward(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """Replace r by its gradient, computed from that of r * h."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit
    cdef real one = 1
    cdef real* gates = at.gates[s] + unit
    cdef vec reset_gate = _load(gates, n), d = _load(f.shared + s * f.cell.back_shared + unit, n)
    cdef vec slope = _slope_of(f, at, s, 0, unit, reset_gate * (one - reset_gate))
    _store(gates, d * _load(at.before[0][s] + unit, n) * slope, n)
    _add_lanes(at.d[0][s] + unit, d * reset_gate, n)


cdef void _gru_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that replaces gates by their gradients; r only with the reset after the product."""
    cdef Py_ssize_t s, unit
    cdef bint linear_before_reset = _gru_options(f.cell).linear_before_reset
    for s in range(at.n):
        _add_to(at.d[0][s] + at.begin, at.dy[s] + at.begin, at.end - at.begin)
        unit = at.begin
        while unit < at.end:
            _prefetch_step_before(f, at, s, unit)
            _update_backward(f, at, s, unit)
            if linear_before_reset:
                _reset_after_backward(f, at, s, unit)
            unit += V


cdef void _gru_state_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The last phase with the reset after the product: the gradient of the h before."""
    cdef Series d_seen = _columns(&f.saved[0], 3 * f.cell.H)
    _product_into_state(f, at, &d_seen, f.cell.H, f.cell.recurrent[1], True)
    _gates_into_state(f, at, team)


cdef void _gates_into_state(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    _product_into_state(f, at, &f.saved[0], 2 * f.cell.H, f.cell.recurrent[0], True)
    _cut_state(f, at)


cdef void _published_reset_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase of the reset gate with the reset before the product."""
    cdef Py_ssize_t H = f.cell.H, s, unit
    for s in range(at.n):
        at.source[s] = at.gates[s] + 2 * H
        at.target[s] = f.shared + s * f.cell.back_shared + at.begin
    _multiply_back(at, H, f.cell.recurrent[1], at.begin, at.end, False)
    for s in range(at.n):
        unit = at.begin
        while unit < at.end:
            _reset_before_backward(f, at, s, unit)
            unit += V


cdef Py_ssize_t _gru_sums(const Pass* f, Outer* sums) noexcept nogil:
    """The gradients of the weights' rows of r and z, then of the candidate's rows."""
    cdef Py_ssize_t H = f.cell.H, inputs = f.cell.inputs
    cdef bint linear_before_reset = _gru_options(f.cell).linear_before_reset
    sums[0] = _outer(&f.walk, f.saved[0], 2 * H)
    _meet_x(f, &sums[0])
    _meet_h(f, &sums[0])
    sums[1] = _outer(&f.walk, _columns(&f.saved[0], 2 * H), H)
    _meet_x(f, &sums[1])
    sums[1].dW += 2 * H * inputs
    sums[2] = _outer(&f.walk, _columns(&f.saved[0], 3 * H), H)
    if linear_before_reset:
        _meet_h(f, &sums[2])
        sums[2].dR += 2 * H * H
    else:  # R_n multiplied r * h
        sums[1].y, sums[1].P, sums[1].dR = sums[2].dz, H, f.gradients[1] + 2 * H * H
    if f.cell.has_bias:
        sums[0].db, sums[1].db = f.gradients[2], f.gradients[2] + 2 * H
        sums[2].db = f.gradients[3] + 2 * H
    return 3 if linear_before_reset else 2


cdef void _gru_after_sums(const Pass* f) noexcept nogil:
    """Copy the gradient of bias_ih to bias_hh where both are the same.

    That is for r and z; with the reset before the product, for the candidate too.
    """
    cdef Py_ssize_t same = 2 if _gru_options(f.cell).linear_before_reset else 3
    if f.cell.has_bias:
        memcpy(f.gradients[3], f.gradients[2], same * f.cell.H * sizeof(real))


def pack_gru(weights, options, bint backward=False):
    """Pack a GRU's weights and options for `stack`: see fastlstm/kernels/arguments.py.

    With `backward`, the cell serves for forward and backward; without it, for forward only.
    """
    W, R, bias_ih, bias_hh = tuple(weights)
    gate, candidate, clip, linear_before_reset = tuple(options)
    cdef Py_ssize_t H = _gate_size(W, 3)
    cdef Cell cell = _plain_cell(W.shape[1], H, H, 3, bias_ih is not None)
    cdef GruOptions own
    cdef bint usual
    cdef list arrays = []
    cdef Weights read = _read_weights(W, R, bias_ih, bias_hh, 3 * H, H)
    memset(&own, 0, sizeof(own))
    own.gate, own.candidate = _read_activation(gate), _read_activation(candidate)
    own.clip, own.linear_before_reset = _number(clip), linear_before_reset
    usual = (
        own.gate.kind == SIGMOID and own.candidate.kind == TANH and own.clip == <real> INFINITY
    )
    _save_as(&cell, 4, H)
    if not usual:
        cell.slopes = cell.saved
        _save_as(&cell, 3, H)
    if linear_before_reset:
        cell.panels = _panels(_pack_gru_gates(&read), arrays)
        cell.row_size = 3 * V
        cell.phase[0], cell.phases = _gru_gates if usual else _gru_general_gates, 1
    else:
        cell.panels = _panels(_pack_wide(&read, 3), arrays)
        cell.sets, cell.blocks, cell.shared = 3, _blocks(H, PANEL), 2 * H
        cell.phase[0], cell.phase[1], cell.phases = _published_gates, _published_candidate, 2
    if backward:
        cell.transposed = _panels(pack(W.T), arrays)
        cell.recurrent[0] = _panels(pack(R[: 2 * H].T), arrays)
        cell.recurrent[1] = _panels(pack(R[2 * H :].T), arrays)
        cell.sums, cell.after_sums = _gru_sums, _gru_after_sums
        cell.back_phase[0] = _gru_cells_backward
        if linear_before_reset:
            cell.back_phase[1], cell.back_phases = _gru_state_backward, 2
        else:
            cell.back_phase[1], cell.back_phase[2] = _published_reset_backward, _gates_into_state
            cell.back_phases, cell.back_shared = 3, H
    return _new_cell(&cell, &own, sizeof(own), tuple(arrays))
