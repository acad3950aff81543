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


cdef struct Series:
    # An array [T, B, N], its last axis contiguous, by pointer; one [B, N] has a step of 0 bytes.
    char* data  # NULL where it is empty
    Py_ssize_t step  # strides in bytes
    Py_ssize_t row


cdef inline Series _series(const real[:, :, :] array) noexcept nogil:
    cdef Series series
    cdef bint empty = array.shape[0] * array.shape[1] * array.shape[2] == 0
    series.data = NULL if empty else <char*> &array[0, 0, 0]
    series.step, series.row = array.strides[0], array.strides[1]
    return series


cdef inline Series _states(const real[:, ::1] array) noexcept nogil:
    cdef Series series
    series.data = NULL if array.shape[0] * array.shape[1] == 0 else <char*> &array[0, 0]
    series.step, series.row = 0, array.strides[0]
    return series


cdef inline real* _at(const Series* series, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    return <real*> (series.data + t * series.step + row * series.row)


cdef inline Py_ssize_t _stride(const Walk* walk, const Series* series) noexcept nogil:
    """Reals from a row of one step of the walk to the same of the next."""
    return (-series.step if walk.reverse else series.step) // <Py_ssize_t> sizeof(real)


cdef inline const real* _previous(
    const Walk* walk,
    Py_ssize_t i,
    Py_ssize_t s,
    const Series* series,  # [T, B, N]: what every step left behind
    const Series* first,  # [B, N]: what the first step found
    const real* zeros,  # [N]
) noexcept nogil:
    """What the i-th step of the walk finds in the row at place s."""
    cdef Py_ssize_t row = _row(walk, s)
    if _is_reset(walk, _step(walk, i), row):
        return zeros
    if s < _live_at(walk, i - 1):
        return _at(series, _step(walk, i - 1), row)
    return _at(first, 0, row)


cdef inline Py_ssize_t _gather(
    const Walk* walk,
    Py_ssize_t i,
    const Series* series,
    Py_ssize_t most_rows,  # of a step
    Py_ssize_t most,
    const real** pointers,  # OUT [count] of [N]
    Py_ssize_t* count,
) noexcept nogil:
    """The rows of as many steps, from the i-th on, as fit whole; gives the step after them."""
    cdef Py_ssize_t s
    count[0] = 0
    while i < walk.T and _live_at(walk, i) <= min(most_rows, most - count[0]):
        for s in range(_live_at(walk, i)):
            pointers[count[0]] = _at(series, _step(walk, i), _row(walk, s))
            count[0] += 1
        i += 1
    return i
