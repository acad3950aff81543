# The LSTM back through time. Equations and sources: reference/__init__.py.

cdef inline void _cell_backward(
    real* gates,  # IN [4, H] from a unit on: i, f, g, o; OUT: gradients before the activations
    Py_ssize_t H,
    const real* c,  # [n]
    const real* c_before,  # [n]
    const real* d_hidden,  # [n]
    real* d_cell,  # IN [n] gradient of c; OUT of c_before, through the carousel
    Py_ssize_t n,
) noexcept nogil:
    cdef vec i = _load(gates, n), f = _load(gates + H, n)
    cdef vec g = _load(gates + 2 * H, n), o = _load(gates + 3 * H, n)
    cdef vec squashed = _tanh(_load(c, n)), dh = _load(d_hidden, n)
    cdef vec dc = _load(d_cell, n) + dh * o * (1 - squashed * squashed)
    _store(gates, dc * g * i * (1 - i), n)
    _store(gates + H, dc * _load(c_before, n) * f * (1 - f), n)
    _store(gates + 2 * H, dc * i * (1 - g * g), n)
    _store(gates + 3 * H, dh * squashed * o * (1 - o), n)
    _store(d_cell, dc * f, n)


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
    resets=None,
    bint reverse=False,
    real[:, :, ::1] dprojected=None,
):
    """Back through time: see reference/lstm.py."""
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
