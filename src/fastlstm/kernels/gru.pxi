# The GRU forward, with sigmoid, tanh and the reset after the product. Equations: reference/gru.py.
#
# The candidate wants W_n x and R_n h apart, so a block's 4 sums are those of r, z, W_n x and R_n h,
# while a panel holds 3 groups a k: see `_tile` with SPLIT.

cdef enum:
    PANEL3 = 3 * V  # what one k of one block holds


def pack_gru(
    const real[:, :] W_ih, const real[:, :] W_hh, const real[::1] bias_ih, const real[::1] bias_hh
):
    """[3H, I], [3H, H], [3H] and [3H] as panels [⌈H / V⌉, 4V + (I + H) 3V].

    Each is the biases of the 4 sums, then [I + H][3][V]. The rows of both sigmoid gates are halved,
    as in `pack_gates`.
    """
    cdef Py_ssize_t H = bias_ih.shape[0] // 3, inputs = W_ih.shape[1]
    cdef Py_ssize_t unit, gate, row, k
    cdef real scale
    cdef real* column
    _expect(bias_ih.shape[0] == 3 * H and bias_hh.shape[0] == 3 * H, "bias_ih, bias_hh")
    _expect(W_ih.shape[0] == 3 * H, "W_ih")
    _expect(W_hh.shape[0] == 3 * H and W_hh.shape[1] == H, "W_hh")
    result = _aligned_empty((_blocks(H, V), PANEL + (inputs + H) * PANEL3))
    cdef real[:, ::1] panels = result
    if H % V:
        result[len(result) - 1] = 0
    for unit in range(H):
        column = &panels[unit // V, unit % V]
        for gate in range(3):
            row = gate * H + unit
            scale = 1 if gate == 2 else 0.5
            if gate == 2:
                column[2 * V] = bias_ih[row]
                column[3 * V] = bias_hh[row]
            else:
                column[gate * V] = scale * (bias_ih[row] + bias_hh[row])
            for k in range(inputs):
                column[PANEL + k * PANEL3 + gate * V] = scale * W_ih[row, k]
            for k in range(H):
                column[PANEL + (inputs + k) * PANEL3 + gate * V] = scale * W_hh[row, k]
    return result


cdef struct GruRows:
    # One step's rows: each [n] of pointers.
    const real** x  # [I]
    const real** h_before  # [H]
    real** h_after  # OUT [H]
    real** gates  # OUT [4, H]


cdef inline void _gru_cell(
    const real* sums,  # [4][V]: r and z halved, W_n x, R_n h
    const real* h_before,  # [n]
    real* h,  # OUT [n]
    real* gates,  # OUT [4, H] from this unit on, or NULL
    Py_ssize_t H,
    Py_ssize_t n,  # lanes in use
) noexcept nogil:
    """h' = (1 - z) n + z h of V units, with one division for both sigmoids."""
    cdef vec pr, qr, pz, qz, inverse, reset_gate, update_gate, candidate
    cdef vec recurrent = (<const vec*> sums)[3]
    cdef real half = 0.5, one = 1
    _tanh_fraction((<const vec*> sums)[0], &pr, &qr)
    _tanh_fraction((<const vec*> sums)[1], &pz, &qz)
    inverse = vec_of(1) / (qr * qz)
    reset_gate = half * _clamp(pr * qz * inverse) + half
    update_gate = half * _clamp(pz * qr * inverse) + half
    candidate = _tanh((<const vec*> sums)[2] + reset_gate * recurrent)
    _store(h, (one - update_gate) * candidate + update_gate * _load(h_before, n), n)
    if gates != NULL:
        _store(gates, reset_gate, n)
        _store(gates + H, update_gate, n)
        _store(gates + 2 * H, candidate, n)
        _store(gates + 3 * H, recurrent, n)


cdef struct Hoist:
    Py_ssize_t pairs  # of a step and a row: so many at most are prepared at once
    const real** x  # scratch [pairs] of [I]
    real* z  # scratch [pairs][blocks][4][V]
    Py_ssize_t prepared  # steps begun
    Py_ssize_t used  # pairs


cdef inline real* _hoisted(
    Hoist* hoist,
    const Walk* walk,
    Py_ssize_t i,
    const Series* x,
    Py_ssize_t inputs,
    const real* packed,
    Py_ssize_t blocks,
    Py_ssize_t panel_block,
) noexcept nogil:
    """[n][blocks][4][V] for the n rows of the walk's i-th step; NULL where rows are many."""
    cdef Py_ssize_t n = _live_at(walk, i), count
    cdef real* z
    if n > _hoist_rows(inputs):
        return NULL
    if i >= hoist.prepared:
        hoist.used = 0
        hoist.prepared = _gather(walk, i, x, _hoist_rows(inputs), hoist.pairs, hoist.x, &count)
        _input_part(hoist.x, count, inputs, packed, blocks, 0, blocks, panel_block, True, hoist.z)
    z = hoist.z + hoist.used * blocks * PANEL
    hoist.used += n
    return z


cdef void _gru_step(
    const GruRows* at,
    Py_ssize_t n,
    Py_ssize_t inputs,
    Py_ssize_t H,
    const real* packed,
    real* hoisted,  # [n][blocks][4][V] where the input's part is done; NULL where it is not
    real* sums,  # scratch [MAX_TILE]
    bint downwards,
) noexcept nogil:
    """As `_lstm_step`."""
    cdef Py_ssize_t blocks = _blocks(H, V), done = 0, width, b, s, rows, r, w, unit
    cdef Py_ssize_t most = TILE // _even(n, TILE)
    cdef Tile tile
    if n == 1 and blocks * H * PANEL3 * sizeof(real) <= NEAR:
        most = 2
    tile.panel_block = PANEL + (inputs + H) * PANEL3
    while done < blocks:
        width = _even(blocks - done, most)
        b = blocks - done - width if downwards else done
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.start = packed + b * tile.panel_block
            tile.panel = tile.start + PANEL
            tile.first, tile.first_size = at.x + s, inputs
            tile.second, tile.second_size = at.h_before + s, H
            if hoisted != NULL:
                tile.panel += inputs * PANEL3
                tile.first_size = 0
                tile.sums = hoisted + (s * blocks + b) * PANEL
                tile.sums_row = tile.start_row = blocks * PANEL
                tile.start, tile.start_block = tile.sums, PANEL
            else:
                tile.sums, tile.sums_row = sums, width * PANEL
                tile.start_row, tile.start_block = 0, tile.panel_block
            _compute_split(&tile, rows, width)
            for r in range(rows):
                for w in range(width):
                    unit = (b + w) * V
                    _gru_cell(
                        tile.sums + r * tile.sums_row + w * PANEL,
                        at.h_before[s + r] + unit,
                        at.h_after[s + r] + unit,
                        at.gates[s + r] + unit if at.gates != NULL else NULL,
                        H,
                        H - unit,
                    )
            s += rows
        done += width


def gru_forward(
    const real[:, :, :] x,
    const real[:, ::1] packed,
    const real[:, ::1] h0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
):
    """One layer in one direction over the whole sequence: see reference/gru.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2], H = h0.shape[1]
    cdef Py_ssize_t blocks = _blocks(H, V), panel_block = PANEL + (inputs + H) * PANEL3
    cdef Py_ssize_t i, t, s, n, row
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect(packed.shape[0] == blocks and packed.shape[1] == panel_block, "packed")
    _expect_steps(y, T, B, H, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == H, "h0, h_n")
    if gates is not None:
        _expect(gates.shape[0] == T and gates.shape[1] == B, "gates")
        _expect(gates.shape[2] == 4 and gates.shape[3] == H, "gates")
    if walk.n == 0 or H == 0:
        return

    cdef Hoist hoist
    hoist.pairs, hoist.prepared, hoist.used = min(<Py_ssize_t> HOIST, T * walk.n), 0, 0
    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real))
        + _padded(hoist.pairs * blocks * PANEL * sizeof(real))
        + (hoist.pairs + 4 * walk.n) * sizeof(void*)
        + H * sizeof(real)
    )
    cdef real* sums = <real*> _aligned(memory)
    hoist.z = sums + MAX_TILE
    hoist.x = <const real**> (hoist.z + hoist.pairs * blocks * PANEL)
    cdef GruRows at
    at.x = hoist.x + hoist.pairs
    at.h_before = at.x + walk.n
    at.h_after = <real**> (at.h_before + walk.n)
    at.gates = at.h_after + walk.n if gates is not None else NULL
    cdef real* zeros = <real*> (at.h_after + 2 * walk.n)
    cdef const real* panels = &packed[0, 0]
    cdef Series x_rows = _series(x), y_rows = _series(y), first = _states(h0)
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, H * sizeof(real))
        for s in range(walk.n):
            row = _row(&walk, s)
            memcpy(&h_n[row, 0], &h0[row, 0], H * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n):
                row = _row(&walk, s)
                at.x[s] = &x[t, row, 0]
                at.h_before[s] = _previous(&walk, i, s, &y_rows, &first, zeros)
                at.h_after[s] = &y[t, row, 0]
                if at.gates != NULL:
                    at.gates[s] = &gates[t, row, 0, 0]
            for s in range(n, walk.n):
                memset(&y[t, _row(&walk, s), 0], 0, H * sizeof(real))
            if n == 0:
                continue
            _gru_step(
                &at,
                n,
                inputs,
                H,
                panels,
                _hoisted(&hoist, &walk, i, &x_rows, inputs, panels, blocks, panel_block),
                sums,
                i & 1,
            )
            for s in range(_live_at(&walk, i + 1), n):
                memcpy(&h_n[_row(&walk, s), 0], at.h_after[s], H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
