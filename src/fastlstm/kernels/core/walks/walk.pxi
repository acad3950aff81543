# Which rows live at which step of a walk through time.

cdef struct Walk:
    Py_ssize_t T
    Py_ssize_t B
    Py_ssize_t n  # number of rows of this walk
    Py_ssize_t first_row  # the first row, if `rows` is NULL
    const Py_ssize_t* rows  # [n] rows, longest first; NULL for n rows from `first_row` on
    const Py_ssize_t* live  # [T] how many of `rows` have not ended; NULL for all rows
    const char* resets  # bools [T, B], or NULL
    Py_ssize_t reset_step  # bytes from a step to the next in `resets`
    Py_ssize_t reset_row  # bytes from a row to the next in `resets`
    bint reverse  # True: from the last step to the first


cdef inline Walk _whole_walk(Py_ssize_t T, Py_ssize_t B, bint reverse) noexcept nogil:
    """Every step of every row."""
    cdef Walk walk
    walk.T, walk.B, walk.n, walk.first_row, walk.reverse = T, B, B, 0, reverse
    walk.rows = walk.live = NULL
    walk.resets = NULL
    walk.reset_step = walk.reset_row = 0
    return walk


cdef inline Py_ssize_t _order_size(Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    """Bytes that `_order_rows` needs."""
    return (T + 1 + B) * sizeof(Py_ssize_t)


cdef void _order_rows(
    Walk* walk,
    const char* lengths,  # [B] Py_ssize_t, each from 0 to T
    Py_ssize_t stride,  # bytes
    Py_ssize_t T,  # the steps of the walk, or more
    void* memory,
) noexcept nogil:
    """Set `rows` and `live` for rows of these lengths, in `memory`."""
    cdef Py_ssize_t t, b, length, longer = 0, count, B = walk.B
    cdef Py_ssize_t* place = <Py_ssize_t*> memory  # [T + 1] by length
    cdef Py_ssize_t* rows = place + T + 1
    memset(place, 0, (T + 1) * sizeof(Py_ssize_t))
    for b in range(B):
        place[(<const Py_ssize_t*> (lengths + b * stride))[0]] += 1
    if place[T] == B:
        return  # no row ends early
    for t in range(T, -1, -1):
        count = place[t]
        place[t] = longer  # rows of this length come after all longer rows
        longer += count
    for b in range(B):
        length = (<const Py_ssize_t*> (lengths + b * stride))[0]
        rows[place[length]] = b
        place[length] += 1
    # Now place[t] is the end of the rows of length t, so place[t + 1] rows are longer than t steps.
    walk.rows, walk.live = rows, place + 1


cdef inline Py_ssize_t _share_size(const Walk* walk, Py_ssize_t parts) noexcept nogil:
    """Bytes that `_share_of` needs."""
    return 0 if walk.rows == NULL else (walk.T + _blocks(walk.n, parts)) * sizeof(Py_ssize_t)


cdef Walk _share_of(
    const Walk* walk, Py_ssize_t part, Py_ssize_t parts, void* memory
) noexcept nogil:
    """One of `parts` walks of about equal work, which together have the rows of `walk`."""
    cdef Walk share = walk[0]
    cdef Py_ssize_t k, t
    cdef Py_ssize_t* rows
    cdef Py_ssize_t* live
    if parts == 1:
        return share
    if walk.rows == NULL:
        share.first_row = walk.n * part // parts
        share.n = walk.n * (part + 1) // parts - share.first_row
        return share
    live, share.n = <Py_ssize_t*> memory, (walk.n - part + parts - 1) // parts
    rows = live + walk.T
    for k in range(share.n):
        rows[k] = walk.rows[part + k * parts]
    for t in range(walk.T):
        live[t] = (walk.live[t] - part + parts - 1) // parts
    share.rows, share.live = rows, live
    return share


cdef inline Py_ssize_t _step(const Walk* walk, Py_ssize_t i) noexcept nogil:
    """The index t in time of the i-th step of the walk."""
    return walk.T - 1 - i if walk.reverse else i


cdef inline Py_ssize_t _live_at(const Walk* walk, Py_ssize_t i) noexcept nogil:
    """How many rows are live at the i-th step of the walk; 0 before its first or after its last."""
    if i < 0 or i >= walk.T:
        return 0
    return walk.n if walk.live == NULL else walk.live[_step(walk, i)]


cdef Py_ssize_t _live_rows(const Walk* walk) noexcept nogil:
    """How many rows are live, over all steps."""
    cdef Py_ssize_t i, count = 0
    for i in range(walk.T):
        count += _live_at(walk, i)
    return count


cdef inline Py_ssize_t _row(const Walk* walk, Py_ssize_t s) noexcept nogil:
    """The row of the batch at place s of the walk's rows."""
    return walk.first_row + s if walk.rows == NULL else walk.rows[s]


cdef inline bint _is_cut(const Walk* walk, Py_ssize_t i, Py_ssize_t s) noexcept nogil:
    """Whether a reset makes the state before the i-th step zero, in the row at place s.

    A reset at t separates the steps t - 1 and t. So a walk in reverse, which comes to t from t + 1,
    is cut by a reset at t + 1; its initial state, which comes from no step, by none.
    """
    cdef Py_ssize_t t
    if walk.resets == NULL or walk.reverse and s >= _live_at(walk, i - 1):
        return False
    t = _step(walk, i) + walk.reverse
    return walk.resets[t * walk.reset_step + _row(walk, s) * walk.reset_row] != 0


cdef struct Series:
    # An array [T, B, N] by pointer, its last axis contiguous; an array [B, N] has a step of 0.
    char* data  # NULL where there is no array
    Py_ssize_t step  # bytes from a step to the next
    Py_ssize_t row  # bytes from a row to the next


cdef inline real* _at(const Series* series, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    return <real*> (series.data + t * series.step + row * series.row)


cdef inline Series _contiguous(real* data, Py_ssize_t B, Py_ssize_t N) noexcept nogil:
    """[T, B, N] without gaps."""
    cdef Series series
    series.data, series.row = <char*> data, N * sizeof(real)
    series.step = B * series.row
    return series


cdef inline Series _columns(const Series* series, Py_ssize_t first) noexcept nogil:
    """The same rows from column `first` on."""
    cdef Series part = series[0]
    part.data += first * <Py_ssize_t> sizeof(real)
    return part


cdef inline Py_ssize_t _stride(const Walk* walk, const Series* series) noexcept nogil:
    """Reals from a row of one step of the walk to the same row of the next."""
    return (-series.step if walk.reverse else series.step) // <Py_ssize_t> sizeof(real)


cdef inline const real* _previous(
    const Walk* walk,
    Py_ssize_t i,
    Py_ssize_t s,
    const Series* series,  # [T, B, N] a part of the state after each step
    const Series* first,  # [B, N] this part of the initial state
    const real* zeros,  # [N]
) noexcept nogil:
    """The state before the i-th step of the walk, in the row at place s."""
    cdef Py_ssize_t row = _row(walk, s)
    if _is_cut(walk, i, s):
        return zeros
    if s < _live_at(walk, i - 1):
        return _at(series, _step(walk, i - 1), row)
    return _at(first, 0, row)


cdef inline Py_ssize_t _gather(
    const Walk* walk,
    Py_ssize_t i,
    const Series* series,
    Py_ssize_t most_rows,  # steps with more live rows are not taken
    Py_ssize_t most,  # number of pointers that fit
    const real** pointers,  # OUT [count] of [N]
    Py_ssize_t* count,
) noexcept nogil:
    """Collect the rows of as many whole steps as fit, from the i-th on; returns the step after."""
    cdef Py_ssize_t s
    count[0] = 0
    while i < walk.T and _live_at(walk, i) <= min(most_rows, most - count[0]):
        for s in range(_live_at(walk, i)):
            pointers[count[0]] = _at(series, _step(walk, i), _row(walk, s))
            count[0] += 1
        i += 1
    return i
