# The LSTM forward. Equations and sources: reference/__init__.py.

cdef enum:
    HOIST = 24  # pairs of a step and a row whose input products are prepared together
    # Steps after which members of a team that have not come are not expected: until then it does
    # not prepare input products that most likely others will do.
    LATE = 4
    # Bytes of recurrent weights below which a single row takes few blocks at a time: more turns of
    # the sweep find their panels in the first cache (hidden 40 to 64: 5 to 15 % measured).
    NEAR = 98304


cdef inline Py_ssize_t _hoist_rows(Py_ssize_t inputs) noexcept nogil:
    """Up to how many rows of a step find W x prepared for many steps; more take W along with R.

    Measured, time with W taken along / with W x prepared, for 1, 2, 3, 4 rows (Zen 4, AVX-512):

        I    1, H  40   0.88  0.89  0.90  0.89      I   64, H 128   1.15  1.01  1.03  0.97
        I   16, H  40   1.03  0.88  0.97            I  128, H 128   1.18  1.08  1.07  0.96
        I   16, H 128   1.01  0.95  0.97            I  512, H 128   1.77  1.24  1.16  0.99
        I   48, H 128   1.10  0.97  1.00            I  512, H 512   1.41  1.16  1.06  1.07
    """
    if inputs < 16:
        return 0
    return 1 if inputs < 48 else 3


def pack_gates(const real[:, :] W_ih, const real[:, :] W_hh, const real[::1] bias):
    """[4H, I], [4H, P] and [4H] as panels [⌈H / V⌉, 1 + I + P, 4, V]: bias, inputs, recurrent.

    The rows of the three sigmoid gates are halved, which is exact: sigmoid(x) is
    1/2 + 1/2 tanh(x/2), and so all four gates are one tanh.
    """
    cdef Py_ssize_t H = bias.shape[0] // 4, inputs = W_ih.shape[1], P = W_hh.shape[1]
    cdef Py_ssize_t unit, gate, k
    cdef real scale
    cdef real* column
    _expect(bias.shape[0] == 4 * H, "bias")
    _expect(W_ih.shape[0] == 4 * H, "W_ih")
    _expect(W_hh.shape[0] == 4 * H, "W_hh")
    result = _aligned_empty((_blocks(H, V), 1 + inputs + P, 4, V))
    cdef real[:, :, :, ::1] panels = result
    if H % V:
        result[len(result) - 1] = 0
    for unit in range(H):
        for gate in range(4):
            scale = 1 if gate == 2 else 0.5
            column = &panels[unit // V, 0, gate, unit % V]
            column[0] = scale * bias[gate * H + unit]
            for k in range(inputs):
                column[(1 + k) * PANEL] = scale * W_ih[gate * H + unit, k]
            for k in range(P):
                column[(1 + inputs + k) * PANEL] = scale * W_hh[gate * H + unit, k]
    return result


cdef struct StepRows:
    # One step's rows: each [n] of pointers.
    const real** x  # [I]
    const real** h_before  # [P]
    const real** c_before  # [H]
    real** c_after  # OUT [H]
    real** h_after  # OUT [H], before a projection
    real** gates  # OUT [4, H], or NULL
    real** y  # OUT [P]
    # Reals from there to the next step's.
    Py_ssize_t x_stride
    Py_ssize_t c_stride
    Py_ssize_t h_stride
    Py_ssize_t gates_stride


cdef inline inlined_void _into_cell(
    const vec* z,  # preactivations of i, f and g; halved for the sigmoids
    vec* input_gate,  # OUT
    vec* forget_gate,  # OUT
    vec* candidate,  # OUT
) noexcept nogil:
    """Three gates for one division."""
    cdef vec pi, qi, pf, qf, pg, qg, inverse, inverse_if
    cdef real half = 0.5
    _tanh_fraction(z[0], &pi, &qi)
    _tanh_fraction(z[1], &pf, &qf)
    _tanh_fraction(z[2], &pg, &qg)
    inverse = vec_of(1) / (qi * qf * qg)
    inverse_if = inverse * qg
    input_gate[0] = half * _clamp(pi * qf * inverse_if) + half
    forget_gate[0] = half * _clamp(pf * qi * inverse_if) + half
    candidate[0] = _clamp(pg * (qi * qf) * inverse)


cdef inline inlined_void _cell(
    const real* z,  # [4][V] preactivations of i, f, g, o; halved for the sigmoids
    const real* c_before,  # [n]
    real* c_after,  # OUT [n]
    real* h,  # OUT [n]
    real* gates,  # OUT [4, H] from this unit on, or NULL
    Py_ssize_t H,
    Py_ssize_t n,  # lanes in use
) noexcept nogil:
    """c' = f c + i g and h = o tanh(c') of V units.

    Divisions are what this costs, so i, f and g share one, o and tanh(c') the other.
    """
    cdef vec po, qo, pc, qc, inverse
    cdef vec input_gate, forget_gate, candidate, output_gate, c
    cdef real half = 0.5
    _into_cell(<const vec*> z, &input_gate, &forget_gate, &candidate)
    c = forget_gate * _load(c_before, n) + input_gate * candidate
    _tanh_fraction((<const vec*> z)[3], &po, &qo)
    _tanh_fraction(c, &pc, &qc)
    inverse = vec_of(1) / (qo * qc)
    output_gate = half * _clamp(po * qc * inverse) + half
    _store(c_after, c, n)
    _store(h, output_gate * _clamp(pc * qo * inverse), n)
    if gates != NULL:
        _store(gates, input_gate, n)
        _store(gates + H, forget_gate, n)
        _store(gates + 2 * H, candidate, n)
        _store(gates + 3 * H, output_gate, n)


cdef void _input_part(
    const real** x,  # [n] of [I]
    Py_ssize_t n,
    Py_ssize_t inputs,
    const real* packed,
    Py_ssize_t blocks,
    Py_ssize_t begin,
    Py_ssize_t end,
    Py_ssize_t panel_block,
    bint split,  # whether panels are as `_compute_split` takes them
    real* z,  # OUT [n][blocks][4][V]
) noexcept nogil:
    """z = W x + bias in blocks `begin` to `end`, for rows of several steps at once."""
    cdef Py_ssize_t b = begin, s, rows, width, most = TILE // _even(max(n, 1), TILE)
    cdef Tile tile
    tile.start_row, tile.start_block, tile.panel_block = 0, panel_block, panel_block
    tile.first_size, tile.second_size, tile.second = inputs, 0, NULL
    tile.sums_row = blocks * PANEL
    while b < end:
        width = _even(end - b, most)
        tile.start = packed + b * panel_block
        tile.panel = tile.start + PANEL
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.first = x + s
            tile.sums = z + (s * blocks + b) * PANEL
            if split:
                _compute_split(&tile, rows, width)
            else:
                _compute(&tile, rows, width, 4)
            s += rows
        b += width


cdef inline void _prefetch_step(
    const StepRows* at, Py_ssize_t s, Py_ssize_t unit, Py_ssize_t inputs, Py_ssize_t H
) noexcept nogil:
    """What the next step wants in the place of this one's row s, from a unit on.

    Else every step meets its arrays in memory: 3 to 6 % of the time from 24 rows on.
    """
    cdef Py_ssize_t gate
    cdef const real* gates
    if unit < inputs:
        PREFETCH(at.x[s] + unit + at.x_stride)
    PREFETCH(at.h_after[s] + unit + at.h_stride)
    if at.gates != NULL:
        gates = at.gates[s] + unit + at.gates_stride
        for gate in range(4):
            PREFETCH(gates + gate * H)
        PREFETCH(at.c_after[s] + unit + at.c_stride)


cdef void _lstm_step(
    const StepRows* at,
    Py_ssize_t n,
    Py_ssize_t inputs,
    Py_ssize_t P,
    Py_ssize_t H,
    const real* packed,
    real* hoisted,  # [n][blocks][4][V] where the input's part is done; NULL where it is not
    Py_ssize_t begin,
    Py_ssize_t end,
    real* sums,  # scratch [MAX_TILE]
    bint downwards,
) noexcept nogil:
    """The gates and cell updates of one step in blocks `begin` to `end`; panels outermost.

    Sweeping the panels downwards in every other step finds the last ones still in cache.
    """
    cdef Py_ssize_t blocks = _blocks(H, V), done = 0, width, b, s, rows, r, w, unit
    cdef Py_ssize_t most = TILE // _even(max(n, 1), TILE)
    cdef Tile tile
    if n == 1 and (end - begin) * P * PANEL * sizeof(real) <= NEAR:
        most = 2
    tile.panel_block = (1 + inputs + P) * PANEL
    tile.second, tile.second_size = NULL, 0
    while done < end - begin:
        width = _even(end - begin - done, most)
        b = end - done - width if downwards else begin + done
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.start = packed + b * tile.panel_block
            if hoisted != NULL:
                tile.panel = tile.start + (1 + inputs) * PANEL
                tile.first, tile.first_size = at.h_before + s, P
                tile.sums = hoisted + (s * blocks + b) * PANEL
                tile.sums_row = tile.start_row = blocks * PANEL
                tile.start, tile.start_block = tile.sums, PANEL
            else:
                tile.panel = tile.start + PANEL
                tile.first, tile.first_size = at.x + s, inputs
                tile.second, tile.second_size = at.h_before + s, P
                tile.sums, tile.sums_row = sums, width * PANEL
                tile.start_row, tile.start_block = 0, tile.panel_block
            _compute(&tile, rows, width, 4)
            for r in range(rows):
                for w in range(width):
                    unit = (b + w) * V
                    _prefetch_step(at, s + r, unit, inputs, H)
                    _cell(
                        tile.sums + r * tile.sums_row + w * PANEL,
                        at.c_before[s + r] + unit,
                        at.c_after[s + r] + unit,
                        at.h_after[s + r] + unit,
                        at.gates[s + r] + unit if at.gates != NULL else NULL,
                        H,
                        H - unit,
                    )
            s += rows
        done += width
