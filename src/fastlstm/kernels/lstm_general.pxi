# A cell's walk through time when all preactivations of a row come before its cell.
# Equations and sources: reference/lstm_general.py.

cdef struct Matrix:
    # The columns of packed gates that meet one vector.
    const real* panels  # [blocks][K][4][V]
    Py_ssize_t K
    Py_ssize_t blocks
    Py_ssize_t block_size


cdef void _gate_sums(
    const Matrix* matrix,
    const real** a,  # [n] of [K]
    Py_ssize_t n,
    const real* start,  # what z begins with, or NULL for z itself
    Py_ssize_t start_block,
    real* z,  # OUT [n][blocks][4][V]
) noexcept nogil:
    """z = start + matrix · a; panels outermost, rows inside."""
    cdef Py_ssize_t b = 0, s, rows, width, most = TILE // _even(max(n, 1), TILE)
    cdef Py_ssize_t row_size = matrix.blocks * PANEL
    cdef Tile tile
    tile.start_row, tile.start_block = 0, start_block
    if start == NULL:
        tile.start_row, tile.start_block = row_size, PANEL
    tile.panel_block, tile.sums_row = matrix.block_size, row_size
    tile.first_size, tile.second_size, tile.second = matrix.K, 0, NULL
    while b < matrix.blocks:
        width = _even(matrix.blocks - b, most)
        tile.panel = matrix.panels + b * matrix.block_size
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.first = a + s
            tile.sums = z + s * row_size + b * PANEL
            tile.start = tile.sums
            if start != NULL:
                tile.start = start + b * start_block
            _compute(&tile, rows, width, 4)
            s += rows
        b += width


cdef void _unhalve(real* z, Py_ssize_t blocks) noexcept nogil:
    """Preactivations [blocks][4][V] of panels in which the sigmoids' rows were halved."""
    cdef Py_ssize_t b
    cdef vec* gates
    for b in range(blocks):
        gates = <vec*> (z + b * PANEL)
        gates[0] += gates[0]
        gates[1] += gates[1]
        gates[3] += gates[3]


cdef void _store_gates(const real* z, real* gates, Py_ssize_t H) noexcept nogil:
    """[blocks][4][V] as [4][H]."""
    cdef Py_ssize_t b, g
    for b in range(_blocks(H, V)):
        for g in range(4):
            _store(
                gates + g * H + b * V, (<const vec*> (z + b * PANEL))[g], H - b * V
            )


cdef void _normal_gates(
    const Variant* variant,
    real* z,  # IN [blocks][4][V] W x; OUT preactivations
    real* z_hidden,  # IN R h; OUT normalised
    real* gates,  # OUT [4, H] W x normalised, or NULL
    real* recurrent_gates,  # OUT [4, H] R h normalised, or NULL
    real* scales,  # OUT [2, 4], or NULL
) noexcept nogil:
    """LN(W x) gain + LN(R h) gain + bias, each gate by itself."""
    cdef Py_ssize_t H = variant.H, b, g, at
    cdef real by_input, by_hidden
    cdef vec lanes
    cdef vec* here
    for g in range(4):
        by_input = _standardise(z + g * V, PANEL, H)
        by_hidden = _standardise(z_hidden + g * V, PANEL, H)
        if scales != NULL:
            scales[g], scales[4 + g] = by_input, by_hidden
    if gates != NULL:
        _store_gates(z, gates, H)
        _store_gates(z_hidden, recurrent_gates, H)
    for b in range(_blocks(H, V)):
        for g in range(4):
            at = g * H + b * V
            here = <vec*> (z + b * PANEL) + g
            lanes = _load(variant.norm + GATE_BIAS * H + at, H - b * V)
            lanes += here[0] * _load(variant.norm + INPUT_GAIN * H + at, H - b * V)
            here[0] = lanes + (
                (<vec*> (z_hidden + b * PANEL))[g]
                * _load(variant.norm + HIDDEN_GAIN * H + at, H - b * V)
            )


cdef void _times(real* out, const real* a, const real* b, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k, start
    for k in range(_blocks(n, V)):
        start = k * V
        _store(out + start, _load(a + start, n - start) * _load(b + start, n - start), n - start)


cdef const unsigned char[:, :, ::1] _flags(
    flags, Py_ssize_t T, Py_ssize_t B, Py_ssize_t N, str name
):
    """bool [T, B, N] as bytes; a memoryview has no bools."""
    cdef const unsigned char[:, :, ::1] result = None
    if flags is not None:
        result = flags.view(np.uint8)
        _expect(result.shape[0] == T and result.shape[1] == B and result.shape[2] == N, name)
    return result


cdef int _expect_gates(
    const real[:, :, :, ::1] gates, Py_ssize_t T, Py_ssize_t B, Py_ssize_t H, str name
) except -1:
    _expect(gates.shape[0] == T and gates.shape[1] == B, name)
    _expect(gates.shape[2] == 4 and gates.shape[3] == H, name)
    return 0


def lstm_general_forward(
    const real[:, :, :] x,
    const real[:, :, :, ::1] packed,
    const real[:, :, :, ::1] projection,
    const real[:, ::1] h0,
    const real[:, ::1] c0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    real[:, ::1] c_n,
    const real[:, ::1] activations,
    double clip,
    bint coupled,
    const real[:, ::1] peepholes=None,
    const real[:, ::1] norm=None,
    double zoneout_h=0,
    double zoneout_c=0,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
    real[:, :, ::1] cells=None,
    real[:, :, ::1] hidden=None,
    kept_h=None,
    kept_c=None,
    const real[:, ::1] mask=None,
    real[:, :, ::1] masked=None,
    real[:, :, :, ::1] recurrent_gates=None,
    real[:, :, :, ::1] scales=None,
):
    """One layer in one direction over the whole sequence: see reference/lstm_general.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2]
    cdef Py_ssize_t H = c0.shape[1], P = h0.shape[1], blocks = _blocks(H, V)
    cdef Py_ssize_t i, t, s, n, k, row, unit, count, used = 0, prepared = 0
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef Variant variant = _variant(H, activations, clip, coupled, peepholes, norm)
    cdef bint training = gates is not None, projected = projection is not None
    cdef bint normal = norm is not None, training_normal = training and normal
    cdef const unsigned char[:, :, ::1] flags_h = _flags(kept_h, T, B, P, "kept_h")
    cdef const unsigned char[:, :, ::1] flags_c = _flags(kept_c, T, B, H, "kept_c")
    cdef bint zoned = flags_h is not None or zoneout_h > 0
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect(packed.shape[0] == blocks and packed.shape[1] == 1 + inputs + P, "packed")
    _expect(packed.shape[2] == 4 and packed.shape[3] == V, "packed")
    _expect_steps(y, T, B, P, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == P, "h0, h_n")
    _expect(c0.shape[0] == B and c_n.shape[0] == B and c_n.shape[1] == H, "c0, c_n")
    _expect((cells is not None) == training, "cells")
    _expect((hidden is not None) == (training and projected), "hidden")
    _expect((recurrent_gates is not None) == training_normal, "recurrent_gates")
    _expect((scales is not None) == training_normal, "scales")
    _expect((masked is not None) == (mask is not None), "masked")
    if projected:
        _expect_packed(projection, P, H, "projection")
    else:
        _expect(P == H, "h0")
    if mask is not None:
        _expect(mask.shape[0] == B and mask.shape[1] == P, "mask")
        _expect_steps(masked, T, B, P, "masked")
    if training:
        _expect_steps(cells, T, B, H, "cells")
        _expect_gates(gates, T, B, H, "gates")
    if training and projected:
        _expect_steps(hidden, T, B, H, "hidden")
    if training_normal:
        _expect_gates(recurrent_gates, T, B, H, "recurrent_gates")
        _expect(scales.shape[0] == T and scales.shape[1] == B, "scales")
        _expect(scales.shape[2] == 2 and scales.shape[3] == 4, "scales")
    if walk.n == 0 or H == 0 or P == 0:
        return

    cdef Py_ssize_t pairs = max(walk.n, min(HOIST, T * walk.n)), row_size = blocks * PANEL
    cdef Py_ssize_t units_size = _padded(blocks * sizeof(Units)) // sizeof(real)
    cdef void* memory = _scratch(
        (MAX_TILE + (pairs + (walk.n if normal else 0)) * row_size + units_size + blocks * V)
        * sizeof(real)
        + (PANEL + max(H, P) + (walk.n * H if projected and not training else 0)) * sizeof(real)
        + (4 * walk.n + pairs) * sizeof(void*)
        + 64
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef real* z = sums + MAX_TILE
    cdef real* z_hidden = z + pairs * row_size
    cdef Units* units = <Units*> (z_hidden + (walk.n if normal else 0) * row_size)
    cdef real* normal_c = <real*> units + units_size
    cdef const real** pair_x = <const real**> (normal_c + blocks * V)
    cdef const real** h_before = pair_x + pairs
    cdef const real** h_met = h_before + walk.n
    cdef real** h_after = <real**> (h_met + walk.n)
    cdef real** y_rows = h_after + walk.n
    cdef real* zeros = <real*> (y_rows + walk.n)  # as many as a panel or a state holds
    cdef real* wide_h = zeros + PANEL + max(H, P)
    cdef Series y_series = _series(y), first_h = _states(h0)
    cdef Series c_series = _series(cells) if training else _states(c_n), first_c = _states(c0)
    cdef const real* c_before
    cdef real* c_after
    cdef real* here
    cdef const unsigned char* flags
    cdef vec fresh
    cdef Matrix W, R
    W.blocks, W.block_size, W.K = blocks, (1 + inputs + P) * PANEL, inputs
    W.panels = &packed[0, 0, 0, 0] + PANEL
    R = W
    R.panels, R.K = W.panels + inputs * PANEL, P
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, (PANEL + max(H, P)) * sizeof(real))
        for s in range(walk.n):
            row = _row(&walk, s)
            memcpy(&h_n[row, 0], &h0[row, 0], P * sizeof(real))
            memcpy(&c_n[row, 0], &c0[row, 0], H * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n, walk.n):
                memset(&y[t, _row(&walk, s), 0], 0, P * sizeof(real))
            if n == 0:
                continue

            # W x + bias, of as many steps as fit
            if i >= prepared:
                used = count = 0
                prepared = i
                while prepared < T and _live_at(&walk, prepared) <= pairs - count:
                    for s in range(_live_at(&walk, prepared)):
                        pair_x[count] = &x[_step(&walk, prepared), _row(&walk, s), 0]
                        count += 1
                    prepared += 1
                _gate_sums(&W, pair_x, count, W.panels - PANEL, W.block_size, z)
            here = z + used * row_size
            used += n

            # R h
            for s in range(n):
                row = _row(&walk, s)
                y_rows[s] = &y[t, row, 0]
                h_before[s] = h_met[s] = _previous(&walk, i, s, &y_series, &first_h, zeros)
                if mask is not None:
                    h_met[s] = &masked[t, row, 0]
                    _times(&masked[t, row, 0], h_before[s], &mask[row, 0], P)
                if not projected:
                    h_after[s] = y_rows[s]
                elif training:
                    h_after[s] = &hidden[t, row, 0]
                else:
                    h_after[s] = wide_h + s * H
            if normal:
                _gate_sums(&R, h_met, n, zeros, 0, z_hidden)
            else:
                _gate_sums(&R, h_met, n, NULL, 0, here)

            # the cells
            for s in range(n):
                row = _row(&walk, s)
                _unhalve(here + s * row_size, blocks)
                if normal:
                    _unhalve(z_hidden + s * row_size, blocks)
                    _normal_gates(
                        &variant,
                        here + s * row_size,
                        z_hidden + s * row_size,
                        &gates[t, row, 0, 0] if training else NULL,
                        &recurrent_gates[t, row, 0, 0] if training else NULL,
                        &scales[t, row, 0, 0] if training else NULL,
                    )
                elif training:
                    _store_gates(here + s * row_size, &gates[t, row, 0, 0], H)
                if training:
                    c_before = _previous(&walk, i, s, &c_series, &first_c, zeros)
                    c_after = &cells[t, row, 0]
                else:
                    c_before = zeros if _is_reset(&walk, t, row) else &c_n[row, 0]
                    c_after = &c_n[row, 0]
                _variant_cell(
                    &variant,
                    here + s * row_size,
                    c_before,
                    c_after,
                    h_after[s],
                    &flags_c[t, row, 0] if flags_c is not None else NULL,
                    zoneout_c,
                    units,
                    normal_c,
                )
            if projected:
                _multiply(
                    <const real**> h_after,
                    n,
                    H,
                    &projection[0, 0, 0, 0],
                    P,
                    y_rows,
                    NULL,
                    False,
                    sums,
                )
            if zoned:
                for s in range(n):
                    row = _row(&walk, s)
                    for k in range(_blocks(P, V)):
                        unit = k * V
                        fresh = _load(y_rows[s] + unit, P - unit)
                        flags = &flags_h[t, row, unit] if flags_h is not None else NULL
                        fresh = _zoned(
                            _load(h_before[s] + unit, P - unit), fresh, flags, zoneout_h, P - unit
                        )
                        _store(y_rows[s] + unit, fresh, P - unit)
            for s in range(_live_at(&walk, i + 1), n):
                row = _row(&walk, s)
                memcpy(&h_n[row, 0], y_rows[s], P * sizeof(real))
                if training:
                    memcpy(&c_n[row, 0], &cells[t, row, 0], H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
