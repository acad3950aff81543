# The GRU back through time. Equations: reference/gru.py.

cdef inline void _update_backward(
    real* gates,  # [4, H] from a unit on: IN r, z, n; OUT: gradients before z's and n's activation
    const real* slopes,  # [3, H], or NULL where they are those of sigmoid and tanh
    const real* h_before,  # [n]
    real* d_hidden,  # IN [n] gradient of h; OUT of the h before, through the carousel
    Py_ssize_t H,
    Py_ssize_t n,
) noexcept nogil:
    cdef real one = 1
    cdef vec update_gate = _load(gates + H, n), candidate = _load(gates + 2 * H, n)
    cdef vec dh = _load(d_hidden, n), update_slope, candidate_slope
    if slopes == NULL:
        update_slope = update_gate * (one - update_gate)
        candidate_slope = one - candidate * candidate
    else:
        update_slope, candidate_slope = _load(slopes + H, n), _load(slopes + 2 * H, n)
    _store(gates + H, dh * (_load(h_before, n) - candidate) * update_slope, n)
    _store(gates + 2 * H, dh * (one - update_gate) * candidate_slope, n)
    _store(d_hidden, dh * update_gate, n)


cdef inline vec _reset_slope(vec reset_gate, const real* slopes, Py_ssize_t n) noexcept nogil:
    cdef real one = 1
    return reset_gate * (one - reset_gate) if slopes == NULL else _load(slopes, n)


cdef inline void _reset_after_backward(
    real* gates,  # [4, H]: IN r, dz, dn, R_n h + b_hn; OUT dr, dz, dn and the latter's gradient
    const real* slopes,
    Py_ssize_t H,
    Py_ssize_t n,
) noexcept nogil:
    """With linear_before_reset."""
    cdef vec reset_gate = _load(gates, n), d_candidate = _load(gates + 2 * H, n)
    cdef vec slope = _reset_slope(reset_gate, slopes, n)
    _store(gates, d_candidate * _load(gates + 3 * H, n) * slope, n)
    _store(gates + 3 * H, d_candidate * reset_gate, n)


cdef inline void _reset_before_backward(
    real* gates,  # IN r from a unit on; OUT dr
    const real* slopes,
    const real* h_before,  # [n]
    const real* d_kept,  # [n]: gradient of r * h
    real* d_hidden,  # [n]: added to
    Py_ssize_t n,
) noexcept nogil:
    """Without linear_before_reset."""
    cdef vec reset_gate = _load(gates, n), d = _load(d_kept, n)
    _store(gates, d * _load(h_before, n) * _reset_slope(reset_gate, slopes, n), n)
    _store(d_hidden, _load(d_hidden, n) + d * reset_gate, n)


def gru_backward(
    real[:, :, :, ::1] gates,
    const real[:, :, :] y,
    const real[:, ::1] h0,
    const real[:, :, :] dy,
    real[:, ::1] dh,
    const real[:, :, :, ::1] R,
    const real[:, :, :, ::1] R_candidate,
    bint linear_before_reset,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    const real[:, :, :, ::1] slopes=None,
):
    """Back through time: see reference/gru.py."""
    cdef Py_ssize_t T = gates.shape[0], B = gates.shape[1], H = gates.shape[3]
    cdef Py_ssize_t i, t, s, n, k, row, unit
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    _expect(gates.shape[2] == 4, "gates")
    _expect_steps(y, T, B, H, "y")
    _expect_contiguous(y, "y")
    _expect_steps(dy, T, B, H, "dy")
    _expect_contiguous(dy, "dy")
    _expect(h0.shape[0] == B and h0.shape[1] == H, "h0")
    _expect(dh.shape[0] == B and dh.shape[1] == H, "dh")
    _expect_packed(R, H, 2 * H, "R")
    _expect_packed(R_candidate, H, H, "R_candidate")
    if slopes is not None:
        _expect(slopes.shape[0] == T and slopes.shape[1] == B, "slopes")
        _expect(slopes.shape[2] == 3 and slopes.shape[3] == H, "slopes")
    if walk.n == 0 or H == 0:
        return

    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real))
        + (1 + walk.n) * H * sizeof(real)
        + 6 * walk.n * sizeof(void*)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef real** gate_rows = <real**> (sums + MAX_TILE)  # each [n] of pointers
    cdef const real** slope_rows = <const real**> (gate_rows + walk.n)
    cdef const real** h_before = slope_rows + walk.n
    cdef real** dh_rows = <real**> (h_before + walk.n)
    cdef const real** candidate_rows = <const real**> (dh_rows + walk.n)
    cdef real** d_kept = <real**> (candidate_rows + walk.n)
    cdef real* zeros = <real*> (d_kept + walk.n)
    cdef Series y_series = _series(y), first = _states(h0)
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
                candidate_rows[s] = &gates[t, row, 3 if linear_before_reset else 2, 0]
                slope_rows[s] = &slopes[t, row, 0, 0] if slopes is not None else NULL
                h_before[s] = _previous(&walk, i, s, &y_series, &first, zeros)
                dh_rows[s] = &dh[row, 0]
                d_kept[s] = zeros + (1 + s) * H
                for k in range(H):
                    dh[row, k] += dy[t, row, k]
                for k in range(_blocks(H, V)):
                    unit = k * V
                    _update_backward(
                        gate_rows[s] + unit,
                        slope_rows[s] + unit if slope_rows[s] != NULL else NULL,
                        h_before[s] + unit,
                        dh_rows[s] + unit,
                        H,
                        H - unit,
                    )
                    if linear_before_reset:
                        _reset_after_backward(
                            gate_rows[s] + unit,
                            slope_rows[s] + unit if slope_rows[s] != NULL else NULL,
                            H,
                            H - unit,
                        )
            if linear_before_reset:
                _multiply(
                    candidate_rows, n, H, &R_candidate[0, 0, 0, 0], H, dh_rows, NULL, True, sums
                )
            else:
                _multiply(
                    candidate_rows, n, H, &R_candidate[0, 0, 0, 0], H, d_kept, NULL, False, sums
                )
                for s in range(n):
                    for k in range(_blocks(H, V)):
                        unit = k * V
                        _reset_before_backward(
                            gate_rows[s] + unit,
                            slope_rows[s] + unit if slope_rows[s] != NULL else NULL,
                            h_before[s] + unit,
                            d_kept[s] + unit,
                            dh_rows[s] + unit,
                            H - unit,
                        )
            _multiply(
                <const real**> gate_rows,
                n,
                2 * H,
                &R[0, 0, 0, 0],
                H,
                dh_rows,
                NULL,
                True,
                sums,
            )
            for s in range(n):
                if _is_reset(&walk, t, _row(&walk, s)):
                    memset(dh_rows[s], 0, H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
