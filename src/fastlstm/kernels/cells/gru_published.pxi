# The GRU with the reset before the product (Cho et al. 2014). Equations: reference/cells/gru.py.
#
# The candidate needs r * h of all units, so a step has two phases. There are three sets of panels,
# one for each gate. The 4 groups of a panel are neighboring units, as in a plain recurrent network.

cdef object _pack_wide(const Weights* weights, Py_ssize_t gates):
    """Panels [G · ⌈H / 4V⌉, 1 + I + H, 4V]: bias, inputs, recurrent, gate by gate."""
    cdef Py_ssize_t H = weights.R.K, inputs = weights.W.K, blocks = _blocks(H, PANEL)
    cdef Py_ssize_t gate, block, unit, row, units
    cdef real* column
    result = _aligned_empty((gates * blocks, 1 + inputs + H, PANEL), False)
    memset(_data(result), 0, gates * blocks * (1 + inputs + H) * PANEL * sizeof(real))
    for gate in range(gates):
        for block in range(blocks):
            PyErr_CheckSignals()
            row, units = gate * H + block * PANEL, min(H - block * PANEL, PANEL)
            column = _data(result) + (gate * blocks + block) * (1 + inputs + H) * PANEL
            for unit in range(units if weights.bias_ih.axes else 0):
                column[unit] = _bias(weights, row + unit)
            _pack_rows(column + PANEL, PANEL, &weights.W, row, units, 1)
            _pack_rows(column + (1 + inputs) * PANEL, PANEL, &weights.R, row, units, 1)
    return result


cdef inline real* _update_of(const Pass* f, Py_ssize_t s) noexcept nogil:
    """[H] scratch for the update gate of the row at place s; r * h is in the H reals after it."""
    return f.shared + s * f.cell.shared


cdef inline void _finish_reset(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """The reset gate and r * h of 4V units."""
    cdef Py_ssize_t H = f.cell.H, k, at_unit, n
    cdef vec gate, slope, kept
    for k in range(4):
        at_unit = unit + k * V
        n = H - at_unit
        if n <= 0:
            return
        gate = _gru_gate(f, 0, z[k], &slope)
        kept = gate * _load(at.before[0][s] + at_unit, n)
        _store(_update_of(f, s) + H + at_unit, kept, n)
        _store_gru_slope(f, at, s, at_unit, 0, slope)
        if at.gates != NULL:
            _store(at.gates[s] + at_unit, gate, n)
            _store(at.gates[s] + 3 * H + at_unit, kept, n)


cdef inline void _finish_update(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    cdef Py_ssize_t H = f.cell.H, k, at_unit, n
    cdef vec gate, slope
    for k in range(4):
        at_unit = unit + k * V
        n = H - at_unit
        if n <= 0:
            return
        gate = _gru_gate(f, 1, z[k], &slope)
        _store(_update_of(f, s) + at_unit, gate, n)
        _store_gru_slope(f, at, s, at_unit, 1, slope)
        if at.gates != NULL:
            _store(at.gates[s] + H + at_unit, gate, n)


cdef inline void _finish_candidate(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """The candidate and h'."""
    cdef Py_ssize_t H = f.cell.H, k, at_unit, n
    cdef vec candidate, slope, update_gate
    cdef real one = 1
    for k in range(4):
        at_unit = unit + k * V
        n = H - at_unit
        if n <= 0:
            return
        candidate = _gru_gate(f, 2, z[k], &slope)
        update_gate = _load(_update_of(f, s) + at_unit, n)
        _store(
            at.after[0][s] + at_unit,
            (one - update_gate) * candidate
            + update_gate * _load(at.before[0][s] + at_unit, n),
            n,
        )
        _store_gru_slope(f, at, s, at_unit, 2, slope)
        if at.gates != NULL:
            _store(at.gates[s] + 2 * H + at_unit, candidate, n)


cdef void _published_gates(
    const Pass* f, const ForwardStep* at, const Team* team
) noexcept nogil:
    """The phase of the reset and the update gate."""
    _gate_step(False, True, 0, _finish_reset, f, at, 0, at.met)
    _gate_step(False, True, 0, _finish_update, f, at, 1, at.met)


cdef void _published_candidate(
    const Pass* f, const ForwardStep* at, const Team* team
) noexcept nogil:
    """The phase of the candidate."""
    cdef Py_ssize_t s
    for s in range(at.n):
        at.spare[s] = _update_of(f, s) + f.cell.H
    _gate_step(False, True, 0, _finish_candidate, f, at, 2, <const real**> at.spare)
