# The plain recurrent network, both ways. Equations: reference/rnn.py.
#
# The rows of y hold W x + b for some steps ahead, and each step adds R h and activates in place.

def rnn_forward(
    const real[:, :, :] x,
    const real[:, :, :, ::1] W,
    const real[:, :, :, ::1] R,
    const real[::1] bias,
    const real[:, ::1] h0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    const real[::1] activation,
    double clip,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
):
    """One layer in one direction over the whole sequence: see reference/rnn.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1], inputs = x.shape[2], H = h0.shape[1]
    cdef Py_ssize_t i, t, s, n, row, count, prepared = 0, used = 0
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef Activation f = _read_activation(activation)
    cdef real* slopes
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect_packed(W, H, inputs, "W")
    _expect_packed(R, H, H, "R")
    _expect(bias.shape[0] == H, "bias")
    _expect_steps(y, T, B, H, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == H, "h0, h_n")
    if gates is not None:
        _expect(gates.shape[0] == T and gates.shape[1] == B, "gates")
        _expect(gates.shape[2] == 1 and gates.shape[3] == H, "gates")
    if walk.n == 0 or H == 0:
        return

    cdef Py_ssize_t pairs = min(max(walk.n, <Py_ssize_t> HOIST), T * walk.n)
    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real))
        + (2 * pairs + walk.n) * sizeof(void*)
        + H * sizeof(real)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** x_rows = <const real**> (sums + MAX_TILE)  # each [n] of pointers
    cdef const real** y_rows = x_rows + pairs
    cdef real** h
    cdef const real** h_before = y_rows + pairs
    cdef real* zeros = <real*> (h_before + walk.n)
    cdef Series x_series = _series(x), y_series = _series(y), first = _states(h0)
    cdef const real* W_panels = &W[0, 0, 0, 0] if inputs else NULL
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
            for s in range(n, walk.n):
                memset(&y[t, _row(&walk, s), 0], 0, H * sizeof(real))
            if n == 0:
                continue
            if i >= prepared:
                _gather(&walk, i, &y_series, walk.n, pairs, y_rows, &count)
                prepared = _gather(&walk, i, &x_series, walk.n, pairs, x_rows, &count)
                _multiply(
                    x_rows, count, inputs, W_panels, H, <real**> y_rows, &bias[0], False, sums
                )
                used = 0
            h = <real**> y_rows + used
            used += n
            for s in range(n):
                h_before[s] = _previous(&walk, i, s, &y_series, &first, zeros)
            _multiply(h_before, n, H, &R[0, 0, 0, 0], H, h, NULL, True, sums)
            for s in range(n):
                row = _row(&walk, s)
                slopes = &gates[t, row, 0, 0] if gates is not None else NULL
                _activate_row(&f, <real> clip, h[s], slopes, H)
            for s in range(_live_at(&walk, i + 1), n):
                memcpy(&h_n[_row(&walk, s), 0], h[s], H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)


def rnn_backward(
    real[:, :, :, ::1] gates,
    const real[:, :, :] dy,
    real[:, ::1] dh,
    const real[:, :, :, ::1] R,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
):
    """Back through time: see reference/rnn.py."""
    cdef Py_ssize_t T = gates.shape[0], B = gates.shape[1], H = gates.shape[3]
    cdef Py_ssize_t i, t, s, n, k, row
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    _expect(gates.shape[2] == 1, "gates")
    _expect_steps(dy, T, B, H, "dy")
    _expect_contiguous(dy, "dy")
    _expect(dh.shape[0] == B and dh.shape[1] == H, "dh")
    _expect_packed(R, H, H, "R")
    if walk.n == 0 or H == 0:
        return

    cdef void* memory = _scratch(
        _padded(MAX_TILE * sizeof(real)) + 2 * walk.n * sizeof(void*)
    )
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** dz_rows = <const real**> (sums + MAX_TILE)
    cdef real** dh_rows = <real**> (dz_rows + walk.n)
    cdef unsigned int mode
    with nogil:
        mode = flush_subnormals()
        for i in range(T - 1, -1, -1):
            t = _step(&walk, i)
            n = _live_at(&walk, i)
            for s in range(n):
                row = _row(&walk, s)
                dz_rows[s] = &gates[t, row, 0, 0]
                dh_rows[s] = &dh[row, 0]
                for k in range(H):
                    gates[t, row, 0, k] *= dy[t, row, k] + dh[row, k]
            _multiply(dz_rows, n, H, &R[0, 0, 0, 0], H, dh_rows, NULL, False, sums)
            for s in range(n):
                if _is_reset(&walk, t, _row(&walk, s)):
                    memset(dh_rows[s], 0, H * sizeof(real))
        restore_mode(mode)
    PyMem_RawFree(memory)
