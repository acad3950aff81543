# The LSTM: the cell, forward and backward. Equations and sources: reference.py.

cdef enum:
    # Up to HOIST_ROWS rows a step, W is read once for HOIST pairs of step and row together; more
    # rows take W and the recurrent weights in one go.
    HOIST_ROWS = 3
    HOIST = 24


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


cdef void _cell(
    real* z,  # IN [4][V] preactivations of i, f, g, o (of sigmoids: half); OUT the gates
    const real* c_before,  # [n]
    real* c_after,  # OUT [n]
    real* h,  # OUT [n]
    Py_ssize_t n,  # lanes in use
) noexcept nogil:
    """c' = f c + i g and h = o tanh(c') of V units.

    Divisions are what this costs, so i, f and g share one, o and tanh(c') the other.
    """
    cdef int j
    cdef real gates[4 * V]
    cdef real c[V]
    cdef real h_lanes[V]
    cdef real pi, qi, pf, qf, pg, qg, po, qo, pc, qc, inverse, inverse_if
    cdef real one = 1, half = 0.5
    memcpy(gates, z, 4 * V * sizeof(real))
    _load(c, c_before, n)
    for j in range(V):
        _tanh_fraction(gates[j], &pi, &qi)
        _tanh_fraction(gates[V + j], &pf, &qf)
        _tanh_fraction(gates[2 * V + j], &pg, &qg)
        inverse = one / (qi * qf * qg)
        inverse_if = inverse * qg
        gates[j] = half * _clamp(pi * qf * inverse_if, one) + half
        gates[V + j] = half * _clamp(pf * qi * inverse_if, one) + half
        gates[2 * V + j] = _clamp(pg * (qi * qf) * inverse, one)
        c[j] = gates[V + j] * c[j] + gates[j] * gates[2 * V + j]
        _tanh_fraction(gates[3 * V + j], &po, &qo)
        _tanh_fraction(c[j], &pc, &qc)
        inverse = one / (qo * qc)
        gates[3 * V + j] = half * _clamp(po * qc * inverse, one) + half
        h_lanes[j] = gates[3 * V + j] * _clamp(pc * qo * inverse, one)
    memcpy(z, gates, 4 * V * sizeof(real))
    _store(c_after, c, n)
    _store(h, h_lanes, n)


cdef void _input_part(
    const real** x,  # [n] of [I]
    Py_ssize_t n,
    Py_ssize_t inputs,
    const real* packed,
    Py_ssize_t blocks,
    Py_ssize_t panel_stride,
    real* z,  # OUT [n][blocks][4][V]
) noexcept nogil:
    """z = W x + bias, for rows of several steps at once."""
    cdef Py_ssize_t tiles = _blocks(n, TILE), b = 0, width, tile, s, r, w, rows
    cdef Py_ssize_t most = TILE // _blocks(n, tiles)
    cdef const real* panel
    while b < blocks:
        width = _even(blocks - b, most)
        panel = packed + b * panel_stride
        s = 0
        for tile in range(tiles):
            rows = _blocks(n - s, tiles - tile)
            _bias(rows, width, z + (s * blocks + b) * PANEL, blocks * PANEL, panel, panel_stride)
            _tile_of(
                rows,
                width,
                z + (s * blocks + b) * PANEL,
                blocks * PANEL,
                panel + PANEL,
                panel_stride,
                x + s,
                inputs,
            )
            s += rows
        b += width


cdef inline void _bias(
    Py_ssize_t rows,
    Py_ssize_t blocks,
    real* z,
    Py_ssize_t z_stride,
    const real* panel,
    Py_ssize_t panel_stride,
) noexcept nogil:
    cdef Py_ssize_t r, b
    for r in range(rows):
        for b in range(blocks):
            memcpy(z + r * z_stride + b * PANEL, panel + b * panel_stride, PANEL * sizeof(real))


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
    cdef Py_ssize_t blocks = _blocks(H, V), panel_stride = (1 + inputs + P) * PANEL
    cdef Py_ssize_t tiles = _blocks(n, TILE), most = TILE // _blocks(n, tiles)
    cdef Py_ssize_t done = 0, width, first, tile, s, rows, r, w, unit, lanes, gate, z_stride
    cdef const real* panel
    cdef real* z
    while done < blocks:
        width = _even(blocks - done, most)
        first = blocks - done - width if downwards else done
        panel = packed + first * panel_stride
        s = 0
        for tile in range(tiles):
            rows = _blocks(n - s, tiles - tile)
            if hoisted != NULL:
                z = hoisted + (s * blocks + first) * PANEL
                z_stride = blocks * PANEL
            else:
                z = sums
                z_stride = width * PANEL
                _bias(rows, width, z, z_stride, panel, panel_stride)
                _tile_of(
                    rows, width, z, z_stride, panel + PANEL, panel_stride, at.x + s, inputs
                )
            _tile_of(
                rows,
                width,
                z,
                z_stride,
                panel + (1 + inputs) * PANEL,
                panel_stride,
                at.h_before + s,
                P,
            )
            for r in range(s, s + rows):
                for w in range(width):
                    unit = (first + w) * V
                    lanes = min(H - unit, <Py_ssize_t> V)
                    _cell(
                        z + w * PANEL,
                        at.c_before[r] + unit,
                        at.c_after[r] + unit,
                        at.h_after[r] + unit,
                        lanes,
                    )
                    if at.gates != NULL:
                        for gate in range(4):
                            _store(at.gates[r] + gate * H + unit, z + w * PANEL + gate * V, lanes)
                z += z_stride
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
    const char[:, ::1] resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
    real[:, :, ::1] cells=None,
    real[:, :, ::1] hidden=None,
):
    """One layer in one direction over the whole sequence: see reference.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2]
    cdef Py_ssize_t H = c0.shape[1], P = h0.shape[1], blocks = _blocks(H, V)
    cdef Py_ssize_t i, t, s, n, row, count, used = 0, prepared = 0
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
    cdef real* z = sums + MAX_TILE
    cdef real* hoisted
    cdef const real* panels = &packed[0, 0, 0, 0]
    cdef const real** pair_x = <const real**> (z + pairs * blocks * PANEL)
    cdef StepRows at
    at.x = pair_x + pairs
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

            hoisted = NULL
            if n <= HOIST_ROWS:
                if i >= prepared:
                    used = count = 0
                    prepared = i
                    while prepared < T and count + _live_at(&walk, prepared) <= pairs:
                        for s in range(_live_at(&walk, prepared)):
                            pair_x[count] = &x[_step(&walk, prepared), _row(&walk, s), 0]
                            count += 1
                        prepared += 1
                    _input_part(
                        pair_x, count, inputs, panels, blocks, (1 + inputs + P) * PANEL, z
                    )
                hoisted = z + used * blocks * PANEL
                used += n
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


cdef void _cell_backward(
    real* gates,  # IN [4, H] from a unit on: i, f, g, o; OUT: gradients before the activations
    Py_ssize_t H,
    const real* c,  # [n]
    const real* c_before,  # [n]
    const real* d_hidden,  # [n]
    real* d_cell,  # IN [n] gradient of c; OUT of c_before, through the carousel
    Py_ssize_t n,
) noexcept nogil:
    cdef int j
    cdef real i[V]
    cdef real f[V]
    cdef real g[V]
    cdef real o[V]
    cdef real squashed[V]
    cdef real before[V]
    cdef real dh[V]
    cdef real dc[V]
    cdef real one = 1
    _load(i, gates, n)
    _load(f, gates + H, n)
    _load(g, gates + 2 * H, n)
    _load(o, gates + 3 * H, n)
    _load(squashed, c, n)
    _load(before, c_before, n)
    _load(dh, d_hidden, n)
    _load(dc, d_cell, n)
    _tanh_lanes(squashed)
    for j in range(V):
        dc[j] += dh[j] * o[j] * (one - squashed[j] * squashed[j])
        o[j] = dh[j] * squashed[j] * o[j] * (one - o[j])
        before[j] = dc[j] * before[j] * f[j] * (one - f[j])
        squashed[j] = dc[j] * g[j] * i[j] * (one - i[j])
        g[j] = dc[j] * i[j] * (one - g[j] * g[j])
        dc[j] *= f[j]
    _store(gates, squashed, n)
    _store(gates + H, before, n)
    _store(gates + 2 * H, g, n)
    _store(gates + 3 * H, o, n)
    _store(d_cell, dc, n)


def lstm_backward(
    real[:, :, :, ::1] gates,
    const real[:, :, ::1] cells,
    const real[:, ::1] c0,
    const real[:, :, :] dy,
    real[:, ::1] dh,
    real[:, ::1] dc,
    const real[:, :, :, ::1] recurrent,
    const real[:, :, :, ::1] projection=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    const char[:, ::1] resets=None,
    bint reverse=False,
    real[:, :, ::1] dprojected=None,
):
    """Back through time: see reference.py."""
    cdef Py_ssize_t T = gates.shape[0], B = gates.shape[1], H = gates.shape[3], P = dh.shape[1]
    cdef Py_ssize_t i, t, s, n, k, row, unit, blocks = _blocks(H, V)
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef bint projected = projection is not None
    _expect(gates.shape[2] == 4, "gates")
    _expect_steps(cells, T, B, H, "cells")
    _expect_steps(dy, T, B, P, "dy")
    _expect_contiguous(dy, "dy")
    _expect(c0.shape[0] == B and c0.shape[1] == H, "c0")
    _expect(dc.shape[0] == B and dc.shape[1] == H, "dc")
    _expect(dh.shape[0] == B, "dh")
    _expect_packed(recurrent, P, 4 * H, "recurrent")
    _expect((dprojected is not None) == projected, "dprojected")
    if projected:
        _expect_packed(projection, H, P, "projection")
        _expect_steps(dprojected, T, B, P, "dprojected")
    else:
        _expect(P == H, "dh")
    if walk.n == 0 or H == 0 or P == 0:
        return

    cdef Py_ssize_t wide = walk.n * H if projected else 0
    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real)) + (H + wide) * sizeof(real) + 4 * walk.n * sizeof(void*)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** gate_rows = <const real**> (sums + MAX_TILE)
    cdef real** dh_rows = <real**> (gate_rows + walk.n)
    cdef real** d_hidden = dh_rows + walk.n
    cdef const real** dp_rows = <const real**> (d_hidden + walk.n)
    cdef real* zeros = <real*> (dp_rows + walk.n)
    cdef real* wide_dh = zeros + H
    cdef const real* c_before
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, H * sizeof(real))
        for i in range(T - 1, -1, -1):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n):
                row = _row(&walk, s)
                gate_rows[s] = &gates[t, row, 0, 0]
                d_hidden[s] = dh_rows[s] = &dh[row, 0]
                for k in range(P):
                    dh[row, k] += dy[t, row, k]
                if projected:
                    dp_rows[s] = &dprojected[t, row, 0]
                    memcpy(&dprojected[t, row, 0], &dh[row, 0], P * sizeof(real))
                    d_hidden[s] = wide_dh + s * H
            if projected:
                _multiply(
                    dp_rows, n, P, &projection[0, 0, 0, 0], H, d_hidden, NULL, False, sums
                )
            for s in range(n):
                row = _row(&walk, s)
                c_before = _previous(&walk, i, s, cells, c0, zeros)
                for k in range(blocks):
                    unit = k * V
                    _cell_backward(
                        &gates[t, row, 0, unit],
                        H,
                        &cells[t, row, unit],
                        c_before + unit,
                        d_hidden[s] + unit,
                        &dc[row, unit],
                        H - unit,
                    )
            _multiply(
                gate_rows, n, 4 * H, &recurrent[0, 0, 0, 0], P, dh_rows, NULL, False, sums
            )
            for s in range(n):
                row = _row(&walk, s)
                if _is_reset(&walk, t, row):
                    memset(&dh[row, 0], 0, P * sizeof(real))
                    memset(&dc[row, 0], 0, H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
