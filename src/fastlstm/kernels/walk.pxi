# Which rows live at which step, and what came before them.

cdef struct Walk:
    Py_ssize_t T
    Py_ssize_t B
    Py_ssize_t n  # rows walked
    const Py_ssize_t* rows  # [n] or NULL for 0, 1, ...
    const Py_ssize_t* live  # [T] or NULL for n at every step
    const unsigned char* resets  # [T, B] or NULL
    bint reverse


cdef Walk _walk(
    Py_ssize_t T,
    Py_ssize_t B,
    const Py_ssize_t[::1] rows,
    const Py_ssize_t[::1] live,
    object resets,
    bint reverse,
) except *:
    """The arguments that all kernels share, checked: nothing else may index with them.

    The walk points into the arrays, so the caller keeps them.
    """
    cdef Walk walk
    cdef Py_ssize_t k
    cdef const unsigned char[:, ::1] cut
    walk.T, walk.B, walk.n, walk.reverse = T, B, B, reverse
    walk.rows = walk.live = NULL
    walk.resets = NULL
    if rows is not None:
        walk.n = rows.shape[0]
        for k in range(walk.n):
            _expect(0 <= rows[k] < B, "rows")
        walk.rows = &rows[0] if walk.n else NULL
    if live is not None:
        _expect(live.shape[0] == T and rows is not None, "live")
        for k in range(T):
            _expect(0 <= live[k] <= walk.n, "live")
        walk.live = &live[0] if T else NULL
    if resets is not None:
        cut = resets.view(np.uint8)  # a memoryview has no bools
        _expect(cut.shape[0] == T and cut.shape[1] == B, "resets")
        walk.resets = &cut[0, 0] if T * B else NULL
    return walk


cdef inline Py_ssize_t _step(const Walk* walk, Py_ssize_t i) noexcept nogil:
    """The i-th step of the walk."""
    return walk.T - 1 - i if walk.reverse else i


cdef inline Py_ssize_t _live_at(const Walk* walk, Py_ssize_t i) noexcept nogil:
    """How many rows live at the i-th step of the walk; none before it begins or after it ends."""
    if i < 0 or i >= walk.T:
        return 0
    return walk.n if walk.live == NULL else walk.live[_step(walk, i)]


cdef inline Py_ssize_t _row(const Walk* walk, Py_ssize_t s) noexcept nogil:
    return s if walk.rows == NULL else walk.rows[s]


cdef inline bint _is_reset(const Walk* walk, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    return walk.resets != NULL and walk.resets[t * walk.B + row] != 0


cdef inline const real* _previous(
    const Walk* walk,
    Py_ssize_t i,
    Py_ssize_t s,
    const real[:, :, :] series,  # [T, B, N]: what every step left behind
    const real[:, ::1] first,  # [B, N]: what the first step found
    const real* zeros,  # [N]
) noexcept nogil:
    """What the i-th step of the walk finds in the row at place s."""
    cdef Py_ssize_t row = _row(walk, s)
    if _is_reset(walk, _step(walk, i), row):
        return zeros
    if s < _live_at(walk, i - 1):
        return &series[_step(walk, i - 1), row, 0]
    return &first[row, 0]
