# The GRU with the reset after the product (torch's). Equations: reference/cells/gru.py.
#
# The candidate needs W_n x and R_n h as separate sums. So the 4 sums of a block are those of r and
# z, W_n x and R_n h, while a panel holds 3 groups for each k: see `_tile` with SPLIT.

cdef struct GruOptions:
    Activation gate
    Activation candidate
    real clip
    bint linear_before_reset


cdef inline const GruOptions* _gru_options(const Cell* cell) noexcept nogil:
    return <const GruOptions*> cell.options


cdef object _pack_gru_gates(const Weights* weights):
    """Panels [⌈H / V⌉, 4V + (I + H) 3V]: the biases of the 4 sums, then [I + H][3][V].

    The rows of both sigmoid gates are halved, as in `_pack_gates`.
    """
    cdef Py_ssize_t H = weights.R.K, inputs = weights.W.K, size = 3 * V
    cdef Py_ssize_t block, unit, gate, row, units
    cdef real scale
    cdef real* column
    result = _aligned_empty((_blocks(H, V), PANEL + (inputs + H) * size), H % V)
    for block in range(_blocks(H, V)):
        PyErr_CheckSignals()
        units = min(H - block * V, V)
        column = _data(result) + block * (PANEL + (inputs + H) * size)
        memset(column, 0, PANEL * sizeof(real))
        for gate in range(3):
            row = gate * H + block * V
            scale = 1 if gate == 2 else 0.5
            column = _data(result) + block * (PANEL + (inputs + H) * size) + gate * V
            for unit in range(units if weights.bias_ih.axes else 0):
                if gate == 2:
                    column[unit] = _element(&weights.bias_ih, row + unit, 0)
                    column[V + unit] = _element(&weights.bias_hh, row + unit, 0)
                else:
                    column[unit] = scale * _bias(weights, row + unit)
            _pack_rows(column + PANEL, size, &weights.W, row, units, scale)
            _pack_rows(column + PANEL + inputs * size, size, &weights.R, row, units, scale)
    return result


cdef inline void _store_gru(
    const Pass* f,
    const ForwardStep* at,
    Py_ssize_t s,
    Py_ssize_t unit,
    vec reset_gate,
    vec update_gate,
    vec candidate,
    vec seen,  # R_n h + b_hn, which r multiplies; or r * h (reset before the product)
) noexcept nogil:
    """h' = (1 - z) n + z h of V units; in training, the gates are saved."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit
    cdef real one = 1
    cdef real* gates
    _store(
        at.after[0][s] + unit,
        (one - update_gate) * candidate + update_gate * _load(at.before[0][s] + unit, n),
        n,
    )
    if at.gates != NULL:
        gates = at.gates[s] + unit
        _store(gates, reset_gate, n)
        _store(gates + H, update_gate, n)
        _store(gates + 2 * H, candidate, n)
        _store(gates + 3 * H, seen, n)


cdef inline void _finish_gru(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """The cells with sigmoid and tanh. Both sigmoids need one division together."""
    cdef vec pr, qr, pz, qz, inverse, reset_gate, update_gate
    cdef real half = 0.5
    _tanh_fraction(z[0], &pr, &qr)
    _tanh_fraction(z[1], &pz, &qz)
    inverse = vec_of(1) / (qr * qz)
    reset_gate = half * _clamp(pr * qz * inverse) + half
    update_gate = half * _clamp(pz * qr * inverse) + half
    _store_gru(f, at, s, unit, reset_gate, update_gate, _tanh(z[2] + reset_gate * z[3]), z[3])


cdef inline void _finish_gru_general(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    """The cells with any activations."""
    cdef vec[3] slopes
    cdef vec reset_gate = _gru_gate(f, 0, z[0] + z[0], &slopes[0])
    cdef vec update_gate = _gru_gate(f, 1, z[1] + z[1], &slopes[1])
    cdef vec candidate = _gru_gate(f, 2, z[2] + reset_gate * z[3], &slopes[2])
    cdef Py_ssize_t gate
    _store_gru(f, at, s, unit, reset_gate, update_gate, candidate, z[3])
    for gate in range(3):
        _store_gru_slope(f, at, s, unit, gate, slopes[gate])


cdef inline vec _gru_gate(const Pass* f, Py_ssize_t gate, vec z, vec* slope) noexcept nogil:
    cdef const GruOptions* options = _gru_options(f.cell)
    return _activate_clipped(
        &options.candidate if gate == 2 else &options.gate, options.clip, z, slope
    )


cdef inline void _store_gru_slope(
    const Pass* f,
    const ForwardStep* at,
    Py_ssize_t s,
    Py_ssize_t unit,
    Py_ssize_t gate,
    vec slope,
) noexcept nogil:
    cdef Py_ssize_t H = f.cell.H
    cdef real* slopes
    if f.training and f.cell.slopes:
        slopes = _at(&f.saved[f.cell.slopes], at.t, _row(&f.walk, s))
        _store(slopes + gate * H + unit, slope, H - unit)


cdef void _gru_gates(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    _gate_step(True, False, 0, _finish_gru, f, at, 0, at.met)


cdef void _gru_general_gates(
    const Pass* f, const ForwardStep* at, const Team* team
) noexcept nogil:
    _gate_step(True, False, 0, _finish_gru_general, f, at, 0, at.met)
