# The same walk backwards. Equations and sources: reference/lstm_general.py.

cdef void _variant_cell_backward(
    const Variant* variant,
    real* gates,  # IN [4, H] preactivations, or W x normalised; OUT gradients of W x
    real* recurrent_gates,  # IN [4, H] R h normalised; OUT gradients of R h; NULL without a norm
    const real* scales,  # [2, 4] or NULL
    const real* c_before,  # [H]
    const real* d_hidden,  # [H]
    real* d_cell,  # IN [H] gradient of c; OUT of c_before
    const unsigned char* kept_c,  # [H] or NULL
    real* d_peepholes,  # [3, H] or NULL: added to
    real* d_norm,  # [NORM_ROWS, H] or NULL: added to
    Units* units,  # scratch [blocks]
    real* scratch,  # [6][blocks][V]
) noexcept nogil:
    cdef Py_ssize_t H = variant.H, blocks = _blocks(H, V), size = blocks * V, b, g, n, at, unit
    cdef real* normal = scratch  # of c
    cdef real* d_shown = scratch + size  # of the output activation's argument, then of c
    cdef real* dz = scratch + 2 * size  # [4][H]
    cdef const real* gain = variant.norm
    cdef const real* peepholes = variant.peepholes
    cdef real scale_c = 1
    cdef vec z[4]
    cdef vec before, dh, dc, shown, slope, kept, di, df, dg, do, direct
    cdef Units u
    for b in range(blocks):
        unit = b * V
        n = H - unit
        for g in range(4):
            z[g] = _load(gates + g * H + unit, n)
            if variant.norm != NULL:
                z[g] = (
                    _load(gain + (GATE_BIAS + g) * H + unit, n)
                    + z[g] * _load(gain + (INPUT_GAIN + g) * H + unit, n)
                    + _load(recurrent_gates + g * H + unit, n)
                    * _load(gain + (HIDDEN_GAIN + g) * H + unit, n)
                )
        _open_gates(True, variant, z, _load(c_before + unit, n), unit, &units[b])
        (<vec*> (normal + unit))[0] = vec_of(0)
        _store(normal + unit, units[b].c, n)
    if variant.norm != NULL:
        scale_c = _standardise(normal, V, H)
    for b in range(blocks):
        unit = b * V
        n = H - unit
        dh = _load(d_hidden + unit, n)
        shown = _shown(variant, (<const vec*> (normal + unit))[0], unit, &slope)
        units[b].o_slope *= dh * shown  # the gradient of o's preactivation from here on
        _store(d_shown + unit, dh * units[b].o * slope, n)
    if variant.norm != NULL:
        _add_to(d_norm + CELL_BIAS * H, d_shown, H)
        _standardise_backward(
            d_shown, normal, scale_c, gain + CELL_GAIN * H, d_shown, d_norm + CELL_GAIN * H, H
        )
    for b in range(blocks):
        unit = b * V
        n = H - unit
        u = units[b]
        before = _load(c_before + unit, n)
        dc = _load(d_cell + unit, n)
        direct = vec_of(0)
        if kept_c != NULL:
            kept = vec_of_flags(kept_c + unit, n)
            direct = kept * dc
            dc -= direct
        dc += _load(d_shown + unit, n)
        do = u.o_slope
        if peepholes != NULL:
            dc += do * _load(peepholes + 2 * H + unit, n)
        df = dc * before
        di = dc * u.g
        if variant.coupled:
            di -= df
        di *= u.i_slope
        df *= u.f_slope
        dg = dc * u.i * u.g_slope
        direct += dc * u.f
        if peepholes != NULL:
            direct += di * _load(peepholes + unit, n) + df * _load(peepholes + H + unit, n)
            _add_lanes(d_peepholes + unit, di * before, n)
            _add_lanes(d_peepholes + H + unit, df * before, n)
            _add_lanes(d_peepholes + 2 * H + unit, do * u.c, n)
        _store(d_cell + unit, direct, n)
        if variant.norm == NULL:
            dz = gates
        _store(dz + unit, di, n)
        _store(dz + H + unit, df, n)
        _store(dz + 2 * H + unit, dg, n)
        _store(dz + 3 * H + unit, do, n)
    if variant.norm != NULL:
        _add_to(d_norm + GATE_BIAS * H, dz, 4 * H)
        for g in range(4):
            at = g * H
            _standardise_backward(
                dz + at,
                gates + at,
                scales[g],
                gain + INPUT_GAIN * H + at,
                gates + at,
                d_norm + INPUT_GAIN * H + at,
                H,
            )
            _standardise_backward(
                dz + at,
                recurrent_gates + at,
                scales[4 + g],
                gain + HIDDEN_GAIN * H + at,
                recurrent_gates + at,
                d_norm + HIDDEN_GAIN * H + at,
                H,
            )


cdef inline void _add_lanes(real* target, vec lanes, Py_ssize_t n) noexcept nogil:
    _store(target, _load(target, n) + lanes, n)


cdef inline void _add_to(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t k, start
    for k in range(_blocks(n, V)):
        start = k * V
        _add_lanes(target + start, _load(source + start, n - start), n - start)


cdef inline void _part_zoned(
    real* d,  # IN [n] gradient of a state; OUT of what it would have been
    real* past,  # OUT [n] gradient of the state before
    const unsigned char* kept,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t k, start
    cdef vec lanes, passed
    for k in range(_blocks(n, V)):
        start = k * V
        lanes = _load(d + start, n - start)
        passed = lanes * vec_of_flags(kept + start, n - start)
        _store(past + start, passed, n - start)
        _store(d + start, lanes - passed, n - start)


def lstm_general_backward(
    real[:, :, :, ::1] gates,
    const real[:, :, ::1] cells,
    const real[:, ::1] c0,
    const real[:, :, :] dy,
    real[:, ::1] dh,
    real[:, ::1] dc,
    const real[:, :, :, ::1] recurrent,
    const real[:, :, :, ::1] projection,
    const real[:, ::1] activations,
    double clip,
    bint coupled,
    const real[:, ::1] peepholes=None,
    const real[:, ::1] norm=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, ::1] dprojected=None,
    kept_h=None,
    kept_c=None,
    const real[:, ::1] mask=None,
    real[:, :, :, ::1] recurrent_gates=None,
    const real[:, :, :, ::1] scales=None,
    real[:, :, ::1] d_peepholes=None,
    real[:, :, ::1] d_norm=None,
):
    """Back through time: see reference/lstm_general.py."""
    cdef Py_ssize_t T = gates.shape[0], B = gates.shape[1], H = gates.shape[3], P = dh.shape[1]
    cdef Py_ssize_t i, t, s, n, row, blocks = _blocks(H, V)
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef Variant variant = _variant(H, activations, clip, coupled, peepholes, norm)
    cdef bint projected = projection is not None, normal = norm is not None
    cdef const unsigned char[:, :, ::1] flags_h = _flags(kept_h, T, B, P, "kept_h")
    cdef const unsigned char[:, :, ::1] flags_c = _flags(kept_c, T, B, H, "kept_c")
    _expect(gates.shape[2] == 4, "gates")
    _expect_steps(cells, T, B, H, "cells")
    _expect_steps(dy, T, B, P, "dy")
    _expect_contiguous(dy, "dy")
    _expect(c0.shape[0] == B and c0.shape[1] == H, "c0")
    _expect(dc.shape[0] == B and dc.shape[1] == H, "dc")
    _expect(dh.shape[0] == B, "dh")
    _expect_packed(recurrent, P, 4 * H, "recurrent")
    _expect((dprojected is not None) == projected, "dprojected")
    _expect((d_peepholes is not None) == (peepholes is not None), "d_peepholes")
    _expect((d_norm is not None) == normal, "d_norm")
    _expect((recurrent_gates is not None) == normal, "recurrent_gates")
    _expect((scales is not None) == normal, "scales")
    if projected:
        _expect_packed(projection, H, P, "projection")
        _expect_steps(dprojected, T, B, P, "dprojected")
    else:
        _expect(P == H, "dh")
    if mask is not None:
        _expect(mask.shape[0] == B and mask.shape[1] == P, "mask")
    if peepholes is not None:
        _expect_steps(d_peepholes, B, 3, H, "d_peepholes")
    if normal:
        _expect_steps(d_norm, B, NORM_ROWS, H, "d_norm")
        _expect_gates(recurrent_gates, T, B, H, "recurrent_gates")
        _expect(scales.shape[0] == T and scales.shape[1] == B, "scales")
        _expect(scales.shape[2] == 2 and scales.shape[3] == 4, "scales")
    if walk.n == 0 or H == 0 or P == 0:
        return

    cdef Py_ssize_t units_size = _padded(blocks * sizeof(Units)) // sizeof(real)
    cdef void* memory = _scratch(
        (MAX_TILE + units_size + 6 * blocks * V + H) * sizeof(real)
        + walk.n * ((H if projected else 0) + (P if flags_h is not None else 0)) * sizeof(real)
        + 4 * walk.n * sizeof(void*)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef Units* units = <Units*> (sums + MAX_TILE)
    cdef real* scratch = <real*> units + units_size
    cdef const real** gate_rows = <const real**> (scratch + 6 * blocks * V)
    cdef real** dh_rows = <real**> (gate_rows + walk.n)
    cdef real** d_hidden = dh_rows + walk.n
    cdef const real** dp_rows = <const real**> (d_hidden + walk.n)
    cdef real* zeros = <real*> (dp_rows + walk.n)
    cdef real* wide_dh = zeros + H
    cdef Series c_series = _series(cells), first_c = _states(c0)
    cdef real* direct = wide_dh + (walk.n * H if projected else 0)  # [n, P]: past the zoneout
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, H * sizeof(real))
        for i in range(T - 1, -1, -1):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n):
                row = _row(&walk, s)
                d_hidden[s] = dh_rows[s] = &dh[row, 0]
                _add_to(&dh[row, 0], &dy[t, row, 0], P)
                if flags_h is not None:
                    _part_zoned(&dh[row, 0], direct + s * P, &flags_h[t, row, 0], P)
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
                gate_rows[s] = &gates[t, row, 0, 0]
                if normal:
                    gate_rows[s] = &recurrent_gates[t, row, 0, 0]
                _variant_cell_backward(
                    &variant,
                    &gates[t, row, 0, 0],
                    &recurrent_gates[t, row, 0, 0] if normal else NULL,
                    &scales[t, row, 0, 0] if normal else NULL,
                    _previous(&walk, i, s, &c_series, &first_c, zeros),
                    d_hidden[s],
                    &dc[row, 0],
                    &flags_c[t, row, 0] if flags_c is not None else NULL,
                    &d_peepholes[row, 0, 0] if peepholes is not None else NULL,
                    &d_norm[row, 0, 0] if normal else NULL,
                    units,
                    scratch,
                )
            _multiply(
                gate_rows, n, 4 * H, &recurrent[0, 0, 0, 0], P, dh_rows, NULL, False, sums
            )
            for s in range(n):
                row = _row(&walk, s)
                if mask is not None:
                    _times(&dh[row, 0], &dh[row, 0], &mask[row, 0], P)
                if flags_h is not None:
                    _add_to(&dh[row, 0], direct + s * P, P)
                if _is_reset(&walk, t, row):
                    memset(&dh[row, 0], 0, P * sizeof(real))
                    memset(&dc[row, 0], 0, H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
