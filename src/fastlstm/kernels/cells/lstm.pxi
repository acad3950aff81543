# The plain LSTM. Equations and sources: reference/cells/lstm.py.

cdef object _pack_gates(const Weights* weights, bint halved):
    """Panels [⌈H / V⌉, 1 + I + P, 4, V]: bias, inputs, recurrent.

    With `halved`, the rows of the three sigmoid gates are multiplied by 1/2, which is exact.
    Since sigmoid(x) = 1/2 + 1/2 tanh(x/2), all four gates then need the same tanh.
    """
    cdef Py_ssize_t H = weights.W.N // 4, inputs = weights.W.K, P = weights.R.K
    cdef Py_ssize_t block, unit, gate, row, units
    cdef real scale
    cdef real* column
    result = _aligned_empty((_blocks(H, V), 1 + inputs + P, 4, V), H % V)
    for block in range(_blocks(H, V)):
        PyErr_CheckSignals()
        units = min(H - block * V, V)
        for gate in range(4):
            scale = 0.5 if halved and gate != 2 else 1
            row = gate * H + block * V
            column = _data(result) + block * (1 + inputs + P) * PANEL + gate * V
            for unit in range(units):
                column[unit] = 0
                if weights.bias_ih.axes:
                    column[unit] = scale * _bias(weights, row + unit)
            _pack_rows(column + PANEL, PANEL, &weights.W, row, units, scale)
            _pack_rows(column + (1 + inputs) * PANEL, PANEL, &weights.R, row, units, scale)
    return result


cdef inline inlined_void _into_cell(
    const vec* p,  # numerators of tanh of the preactivations of i, f and g; halved for sigmoids
    const vec* q,  # their denominators
    vec* input_gate,  # OUT
    vec* forget_gate,  # OUT
    vec* candidate,  # OUT
) noexcept nogil:
    """i, f and g by one division."""
    cdef vec inverse = vec_of(1) / (q[0] * q[1] * q[2]), inverse_if = inverse * q[2]
    cdef real half = 0.5
    input_gate[0] = half * _clamp(p[0] * q[1] * inverse_if) + half
    forget_gate[0] = half * _clamp(p[1] * q[0] * inverse_if) + half
    candidate[0] = _clamp(p[2] * (q[0] * q[1]) * inverse)


cdef inline inlined_void _out_of_cell(
    vec po,  # numerator of tanh of the preactivation of o, halved
    vec qo,  # its denominator
    vec c,
    vec* output_gate,  # OUT
    vec* squashed,  # OUT tanh(c)
) noexcept nogil:
    """o and tanh(c) by one division."""
    cdef vec pc, qc, inverse
    cdef real half = 0.5
    _tanh_fraction(c, &pc, &qc)
    inverse = vec_of(1) / (qo * qc)
    output_gate[0] = half * _clamp(po * qc * inverse) + half
    squashed[0] = _clamp(pc * qo * inverse)


cdef inline void _finish_lstm(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """c' = f c + i g and h = o tanh(c') of V units.

    Divisions are most of the cost of a cell, so i, f and g need one together, and o and tanh(c')
    another.
    """
    cdef Py_ssize_t H = at.H, n = H - unit
    cdef vec input_gate, forget_gate, candidate, output_gate, squashed, c, h
    cdef vec c_before = _load(at.before[1][s] + unit, n)
    cdef real* gates
    _into_cell(z, q, &input_gate, &forget_gate, &candidate)
    c = forget_gate * c_before + input_gate * candidate
    _out_of_cell(z[3], q[3], c, &output_gate, &squashed)
    h = output_gate * squashed
    if at.zoned:
        c = _where(_kept_lanes(f, &f.drawn.kept_c, at.t, s, unit), c_before, c)
        h = _where(
            _kept_lanes(f, &f.drawn.kept_h, at.t, s, unit), _load(at.before[0][s] + unit, n), h
        )
    _store(at.after[1][s] + unit, c, n)
    _store(at.after[0][s] + unit, h, n)
    if at.gates != NULL:
        gates = at.gates[s] + unit
        _store(gates, input_gate, n)
        _store(gates + H, forget_gate, n)
        _store(gates + 2 * H, candidate, n)
        _store(gates + 3 * H, output_gate, n)


cdef void _lstm_gates(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    """The only phase of the plain cell."""
    _gate_step(False, False, 4, _finish_lstm, f, at, 0, at.met)


cdef inline vec _reached(vec dh, vec d_c) noexcept nogil:
    """1 where a gradient reaches the new h or c; 0 where zoneout keeps the old ones."""
    cdef real smallest = 4 / LARGEST
    return vec_if_below(vec_abs(dh) + vec_abs(d_c), vec_of(smallest), vec_of(0), vec_of(1))


cdef inline void _cell_backward(
    real* gates,  # IN [4, H] from a unit on: i, f, g, o; OUT gradients of their preactivations
    Py_ssize_t H,
    const real* c,  # [n]
    const real* c_before,  # [n]
    const real* d_hidden,  # [n]
    real* d_cell,  # IN [n] gradient of c; OUT gradient of c_before
    Py_ssize_t n,
    bint zoned,
    vec kept,  # 1 where zoneout keeps the old c; used if `zoned`
) noexcept nogil:
    cdef vec i = _load(gates, n), f = _load(gates + H, n)
    cdef vec g = _load(gates + 2 * H, n), o = _load(gates + 3 * H, n)
    cdef vec before = _load(c_before, n), fresh, reached, past = vec_of(0)
    cdef vec dh = _load(d_hidden, n), dc = _load(d_cell, n)
    if zoned:
        past, dc = _where(kept, dc, vec_of(0)), _where(kept, vec_of(0), dc)
        reached = _reached(dh, dc)
        i, f, g, o = _drop(i, reached), _drop(f, reached), _drop(g, reached), _drop(o, reached)
        before = _drop(before, reached)
        fresh = f * before + i * g
    else:
        fresh = _load(c, n)
    cdef vec squashed = _tanh(fresh)
    dc += dh * o * (1 - squashed * squashed)
    _store(gates, dc * g * i * (1 - i), n)
    _store(gates + H, dc * before * f * (1 - f), n)
    _store(gates + 2 * H, dc * i * (1 - g * g), n)
    _store(gates + 3 * H, dh * squashed * o * (1 - o), n)
    _store(d_cell, dc * f + past if zoned else dc * f, n)


cdef void _lstm_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that replaces gates by their gradients."""
    cdef Py_ssize_t s
    for s in range(at.n):
        _add_to(at.d[0][s] + at.begin, at.dy[s] + at.begin, at.end - at.begin)
    _lstm_units_backward(f, at, at.begin, at.end)


cdef void _lstm_projected_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """As `_lstm_cells_backward`, for a cell with a projection."""
    cdef Py_ssize_t begin, end
    _even_part(team, f.cell.H, PANEL, &begin, &end)
    _lstm_units_backward(f, at, begin, end)


cdef void _lstm_units_backward(
    const Pass* f, const BackwardStep* at, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    cdef Py_ssize_t s, unit
    cdef const real* d_hidden
    cdef bint zoned = f.cell.zoned
    for s in range(at.n):
        d_hidden = _d_hidden(f, at, s)
        unit = begin
        while unit < end:
            _prefetch_step_before(f, at, s, unit)
            _cell_backward(
                at.gates[s] + unit,
                f.cell.H,
                at.after[1][s] + unit,
                at.before[1][s] + unit,
                d_hidden + unit,
                at.d[1][s] + unit,
                f.cell.H - unit,
                zoned,
                _kept_lanes(f, &f.drawn.kept_c, at.t, s, unit) if zoned else vec_of(0),
            )
            unit += V
        if _is_cut(&f.walk, at.i, s):
            memset(at.d[1][s] + begin, 0, (end - begin) * sizeof(real))


cdef void _lstm_state_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that computes the gradient of the h before from those of the gates."""
    _product_into_state(f, at, &f.saved[0], 4 * f.cell.H, f.cell.recurrent[0], False)
    if f.drawn.factors.data != NULL:
        _drop_state(f, at)
    _cut_state(f, at)


cdef Py_ssize_t _lstm_sums(const Pass* f, Outer* sums) noexcept nogil:
    sums[0] = _outer(&f.walk, f.saved[0], 4 * f.cell.H)
    _meet_x(f, &sums[0])
    _meet_h(f, &sums[0])
    if f.cell.has_bias:
        sums[0].db = f.gradients[2]
    return 1
