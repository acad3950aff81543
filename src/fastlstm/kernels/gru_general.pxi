# The GRU forward with any activations, clip, and the reset before or after the product.
# Equations: reference/gru.py.

cdef struct GruOptions:
    bint linear_before_reset
    Activation gate
    Activation candidate
    real clip


cdef inline void _reset_and_update(
    const GruOptions* options,
    real* z,  # IN [3, H] from a unit on: before activation; OUT: r and z after it
    real* slopes,  # OUT [3, H], or NULL
    const real* h_before,  # [n]
    real* kept,  # OUT [n]: r * h
    Py_ssize_t H,
    Py_ssize_t n,
) noexcept nogil:
    cdef vec reset_slope, update_slope
    cdef vec* no_slope = NULL
    cdef vec reset_gate = _activate_clipped(
        &options.gate, options.clip, _load(z, n), &reset_slope if slopes != NULL else no_slope
    )
    cdef vec update_gate = _activate_clipped(
        &options.gate, options.clip, _load(z + H, n), &update_slope if slopes != NULL else no_slope
    )
    _store(z, reset_gate, n)
    _store(z + H, update_gate, n)
    _store(kept, reset_gate * _load(h_before, n), n)
    if slopes != NULL:
        _store(slopes, reset_slope, n)
        _store(slopes + H, update_slope, n)


cdef inline void _gru_general_cell(
    const GruOptions* options,
    const real* z,  # [3, H] from a unit on: r and z, and n's input part
    const real* recurrent,  # [n]: n's recurrent part
    const real* h_before,  # [n]
    real* h,  # OUT [n]
    const real* kept,  # [n]: r * h
    real* gates,  # OUT [4, H], or NULL
    real* slopes,  # OUT [3, H], or NULL
    Py_ssize_t H,
    Py_ssize_t n,
) noexcept nogil:
    cdef real one = 1
    cdef vec slope, candidate, reset_gate = _load(z, n), update_gate = _load(z + H, n)
    cdef vec* no_slope = NULL
    cdef vec seen = _load(recurrent, n)
    candidate = _load(z + 2 * H, n) + (reset_gate * seen if options.linear_before_reset else seen)
    candidate = _activate_clipped(
        &options.candidate, options.clip, candidate, &slope if slopes != NULL else no_slope
    )
    _store(h, (one - update_gate) * candidate + update_gate * _load(h_before, n), n)
    if slopes != NULL:
        _store(slopes + 2 * H, slope, n)
    if gates != NULL:
        _store(gates, reset_gate, n)
        _store(gates + H, update_gate, n)
        _store(gates + 2 * H, candidate, n)
        _store(gates + 3 * H, seen if options.linear_before_reset else _load(kept, n), n)


def gru_general_forward(
    const real[:, :, :] x,
    const real[:, :, :, ::1] W,
    const real[:, :, :, ::1] R,
    const real[:, :, :, ::1] R_candidate,
    const real[:, ::1] bias,
    const real[:, ::1] h0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    bint linear_before_reset,
    const real[:, ::1] activations,
    double clip,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
    real[:, :, :, ::1] slopes=None,
):
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2], H = h0.shape[1]
    cdef Py_ssize_t i, t, s, n, row, unit, k, count, prepared = 0, used = 0
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef bint training = gates is not None
    cdef GruOptions options
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect_packed(W, 3 * H, inputs, "W")
    _expect_packed(R, 2 * H, H, "R")
    _expect_packed(R_candidate, H, H, "R_candidate")
    _expect(bias.shape[0] == 4 and bias.shape[1] == H, "bias")
    _expect_steps(y, T, B, H, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == H, "h0, h_n")
    _expect(activations.shape[0] == 2 and activations.shape[1] == 3, "activations")
    _expect((slopes is not None) == training, "slopes")
    if training:
        _expect(gates.shape[0] == T and gates.shape[1] == B, "gates")
        _expect(gates.shape[2] == 4 and gates.shape[3] == H, "gates")
        _expect(slopes.shape[0] == T and slopes.shape[1] == B, "slopes")
        _expect(slopes.shape[2] == 3 and slopes.shape[3] == H, "slopes")
    options.linear_before_reset, options.clip = linear_before_reset, <real> clip
    options.gate = _read_activation(activations[0])
    options.candidate = _read_activation(activations[1])
    if walk.n == 0 or H == 0:
        return

    cdef Py_ssize_t pairs = min(max(walk.n, <Py_ssize_t> HOIST), T * walk.n)
    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real))
        + (pairs * 3 + walk.n * 2 + 1) * H * sizeof(real)
        + (2 * pairs + 3 * walk.n) * sizeof(void*)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** x_rows = <const real**> (sums + MAX_TILE)
    cdef real** z_rows = <real**> (x_rows + pairs)  # [pairs] of [3, H]
    cdef real** z
    cdef const real** h_before = <const real**> (z_rows + pairs)  # [n] of [H]
    cdef real** kept = <real**> (h_before + walk.n)  # [n] of [H]: r * h
    cdef real** recurrent = kept + walk.n  # [n] of [H]: R_n h + b_hn, or R_n (r * h) + b_hn
    cdef real* zeros = <real*> (recurrent + walk.n)
    cdef real* free = zeros + H
    cdef Series x_series = _series(x), y_series = _series(y), first = _states(h0)
    cdef const real* W_panels = &W[0, 0, 0, 0] if inputs else NULL
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        memset(zeros, 0, H * sizeof(real))
        for k in range(pairs):
            z_rows[k] = free + k * 3 * H
        free += pairs * 3 * H
        for s in range(walk.n):
            kept[s] = free + s * 2 * H
            recurrent[s] = kept[s] + H
            row = _row(&walk, s)
            memcpy(&h_n[row, 0], &h0[row, 0], H * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n, walk.n):
                memset(&y[t, _row(&walk, s), 0], 0, H * sizeof(real))
            if n == 0:
                continue
            if i >= prepared:
                prepared = _gather(&walk, i, &x_series, walk.n, pairs, x_rows, &count)
                _multiply(
                    x_rows, count, inputs, W_panels, 3 * H, z_rows, &bias[0, 0], False, sums
                )
                used = 0
            z = z_rows + used
            used += n
            for s in range(n):
                h_before[s] = _previous(&walk, i, s, &y_series, &first, zeros)
            _multiply(h_before, n, H, &R[0, 0, 0, 0], 2 * H, z, NULL, True, sums)
            for s in range(n):
                row = _row(&walk, s)
                for k in range(_blocks(H, V)):
                    unit = k * V
                    _reset_and_update(
                        &options,
                        z[s] + unit,
                        &slopes[t, row, 0, unit] if training else NULL,
                        h_before[s] + unit,
                        kept[s] + unit,
                        H,
                        H - unit,
                    )
            _multiply(
                h_before if linear_before_reset else <const real**> kept,
                n,
                H,
                &R_candidate[0, 0, 0, 0],
                H,
                recurrent,
                &bias[3, 0],
                False,
                sums,
            )
            for s in range(n):
                row = _row(&walk, s)
                for k in range(_blocks(H, V)):
                    unit = k * V
                    _gru_general_cell(
                        &options,
                        z[s] + unit,
                        recurrent[s] + unit,
                        h_before[s] + unit,
                        &y[t, row, unit],
                        kept[s] + unit,
                        &gates[t, row, 0, unit] if training else NULL,
                        &slopes[t, row, 0, unit] if training else NULL,
                        H,
                        H - unit,
                    )
            for s in range(_live_at(&walk, i + 1), n):
                row = _row(&walk, s)
                memcpy(&h_n[row, 0], &y[t, row, 0], H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
