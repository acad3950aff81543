# The LSTM forward. Equations and sources: reference/__init__.py.

cdef enum:
    # Bytes of recurrent weights below which a single row takes few blocks at a time: more turns of
    # the sweep find their panels in the first cache (hidden 40 to 64: 5 to 15 % measured).
    NEAR = 98304


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
    real** gates  # OUT [4, H]
    real** y  # OUT [P]


cdef inline void _cell(
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
    cdef vec pi, qi, pf, qf, pg, qg, po, qo, pc, qc, inverse, inverse_if
    cdef vec input_gate, forget_gate, candidate, output_gate, c
    cdef real half = 0.5
    _tanh_fraction((<const vec*> z)[0], &pi, &qi)
    _tanh_fraction((<const vec*> z)[1], &pf, &qf)
    _tanh_fraction((<const vec*> z)[2], &pg, &qg)
    _tanh_fraction((<const vec*> z)[3], &po, &qo)
    inverse = vec_of(1) / (qi * qf * qg)
    inverse_if = inverse * qg
    input_gate = half * _clamp(pi * qf * inverse_if) + half
    forget_gate = half * _clamp(pf * qi * inverse_if) + half
    candidate = _clamp(pg * (qi * qf) * inverse)
    c = forget_gate * _load(c_before, n) + input_gate * candidate
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


cdef void _lstm_step(
    const StepRows* at,
    Py_ssize_t n,
    Py_ssize_t inputs,
    Py_ssize_t P,
    Py_ssize_t H,
    const real* packed,
    real* hoisted,  # [n][blocks][4][V] where the input's part is done; NULL where it is not
    real* sums,  # scratch [MAX_TILE]
    bint downwards,
) noexcept nogil:
    """All gates and the cell update of one step; panels outermost, rows inside.

    Sweeping the panels downwards in every other step finds the last ones still in cache.
    """
    cdef Py_ssize_t blocks = _blocks(H, V), done = 0, width, b, s, rows, r, w, unit
    cdef Py_ssize_t most = TILE // _even(n, TILE)
    cdef Tile tile
    if n == 1 and blocks * P * PANEL * sizeof(real) <= NEAR:
        most = 2
    tile.panel_block = (1 + inputs + P) * PANEL
    tile.second, tile.second_size = NULL, 0
    while done < blocks:
        width = _even(blocks - done, most)
        b = blocks - done - width if downwards else done
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


def lstm_forward(
    const real[:, :, :] x,
    const real[:, :, :, ::1] packed,
    const real[:, :, :, ::1] projection,
    const real[:, ::1] h0,
    const real[:, ::1] c0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    real[:, ::1] c_n,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
    real[:, :, ::1] cells=None,
    real[:, :, ::1] hidden=None,
):
    """One layer in one direction over the whole sequence: see reference/lstm.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2]
    cdef Py_ssize_t H = c0.shape[1], P = h0.shape[1], blocks = _blocks(H, V)
    cdef Py_ssize_t i, t, s, n, row
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef bint training = gates is not None, projected = projection is not None
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect(packed.shape[0] == blocks and packed.shape[1] == 1 + inputs + P, "packed")
    _expect(packed.shape[2] == 4 and packed.shape[3] == V, "packed")
    _expect_steps(y, T, B, P, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == P, "h0, h_n")
    _expect(c0.shape[0] == B and c_n.shape[0] == B and c_n.shape[1] == H, "c0, c_n")
    _expect((cells is not None) == training, "cells")
    if projected:
        _expect_packed(projection, P, H, "projection")
        _expect((hidden is not None) == training, "hidden")
    else:
        _expect(P == H and hidden is None, "hidden")
    if training:
        _expect_steps(cells, T, B, H, "cells")
        _expect(gates.shape[0] == T and gates.shape[1] == B, "gates")
        _expect(gates.shape[2] == 4 and gates.shape[3] == H, "gates")
        if projected:
            _expect_steps(hidden, T, B, H, "hidden")
    if walk.n == 0 or H == 0 or P == 0:
        return

    cdef Py_ssize_t pairs = min(HOIST, T * walk.n)
    cdef Py_ssize_t wide = walk.n * H if projected and not training else 0
    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real))
        + _padded(pairs * blocks * PANEL * sizeof(real))
        + (max(H, P) + wide) * sizeof(real)
        + (7 * walk.n + pairs) * sizeof(void*)
        + 64
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef real* hoisted
    cdef const real* panels = &packed[0, 0, 0, 0]
    cdef Hoist hoist
    cdef StepRows at
    hoist.pairs, hoist.prepared, hoist.used = pairs, 0, 0
    hoist.z = sums + MAX_TILE
    hoist.x = <const real**> (hoist.z + pairs * blocks * PANEL)
    at.x = hoist.x + pairs
    at.h_before = at.x + walk.n
    at.c_before = at.h_before + walk.n
    at.c_after = <real**> (at.c_before + walk.n)
    at.h_after = at.c_after + walk.n
    at.y = at.h_after + walk.n
    at.gates = at.y + walk.n if training else NULL
    cdef real* zeros = <real*> (at.y + 2 * walk.n)
    cdef real* wide_h = zeros + max(H, P)
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, max(H, P) * sizeof(real))
        for s in range(walk.n):
            row = _row(&walk, s)
            memcpy(&h_n[row, 0], &h0[row, 0], P * sizeof(real))
            memcpy(&c_n[row, 0], &c0[row, 0], H * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n):
                row = _row(&walk, s)
                at.x[s] = &x[t, row, 0]
                at.y[s] = &y[t, row, 0]
                at.h_before[s] = _previous(&walk, i, s, y, h0, zeros)
                if training:
                    at.c_before[s] = _previous(&walk, i, s, cells, c0, zeros)
                    at.c_after[s] = &cells[t, row, 0]
                    at.gates[s] = &gates[t, row, 0, 0]
                else:
                    at.c_before[s] = zeros if _is_reset(&walk, t, row) else &c_n[row, 0]
                    at.c_after[s] = &c_n[row, 0]
                if not projected:
                    at.h_after[s] = at.y[s]
                elif training:
                    at.h_after[s] = &hidden[t, row, 0]
                else:
                    at.h_after[s] = wide_h + s * H
            for s in range(n, walk.n):
                memset(&y[t, _row(&walk, s), 0], 0, P * sizeof(real))
            if n == 0:
                continue

            hoisted = _hoisted(
                &hoist, &walk, i, x, panels, blocks, (1 + inputs + P) * PANEL, False
            )
            _lstm_step(&at, n, inputs, P, H, panels, hoisted, sums, i & 1)
            if projected:
                _multiply(
                    <const real**> at.h_after,
                    n,
                    H,
                    &projection[0, 0, 0, 0],
                    P,
                    at.y,
                    NULL,
                    False,
                    sums,
                )
            for s in range(_live_at(&walk, i + 1), n):
                row = _row(&walk, s)
                memcpy(&h_n[row, 0], at.y[s], P * sizeof(real))
                if training:
                    memcpy(&c_n[row, 0], at.c_after[s], H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
