# Long sums whose rounding errors do not add up.

cdef enum:
    # Sums that are added one after the other at each level of a long sum. A single running sum of
    # a million numbers would have 50 times the rounding error.
    FAN = 32
    MOST_LEVELS = 4
    TREE = 8  # rows whose columns are summed by pairs


cdef inline Py_ssize_t _levels(Py_ssize_t count) noexcept nogil:
    """How many levels a sum of `count` numbers has: each sums FAN sums of the level below."""
    cdef Py_ssize_t levels = 1
    while count > FAN and levels < MOST_LEVELS:
        levels, count = levels + 1, _blocks(count, FAN)
    return levels


cdef inline void _move(
    real* target, const real* source, Py_ssize_t n, bint fresh
) noexcept nogil:
    """target += source; target = source if `fresh`."""
    if fresh:
        memcpy(target, source, n * sizeof(real))
    else:
        _add_to(target, source, n)


cdef inline vec _sum_by_pairs(
    const real** rows, Py_ssize_t at, Py_ssize_t count, Py_ssize_t n
) noexcept nogil:
    """The sum of up to TREE rows in n columns from `at` on."""
    cdef vec[TREE] lanes
    cdef int k
    for k in range(TREE):
        lanes[k] = _load(rows[k] + at, n) if k < count else vec_of(0)
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + (
        (lanes[4] + lanes[5]) + (lanes[6] + lanes[7])
    )


cdef void _add_columns(
    const real** rows,  # [depth] of [M]
    Py_ssize_t start,
    Py_ssize_t columns,
    Py_ssize_t depth,
    real* sums,  # [M]: added to
    real* lost,  # [M]: added to, what rounding took from `sums` (Knuth's TwoSum)
) noexcept nogil:
    cdef Py_ssize_t k, m, at, n
    cdef vec lanes, before, after, added, error
    for m in range(_blocks(columns, V)):
        at, n = start + m * V, columns - m * V
        after, error = _load(sums + at, n), _load(lost + at, n)
        for k in range(_blocks(depth, TREE)):
            lanes, before = _sum_by_pairs(rows + k * TREE, at, depth - k * TREE, n), after
            after = before + lanes
            added = after - before
            error += (before - (after - added)) + (lanes - added)
        _store(sums + at, after, n)
        _store(lost + at, error, n)


cdef void _end_columns(
    Py_ssize_t start, Py_ssize_t columns, real* sums, const real* lost
) noexcept nogil:
    """Give back to `sums` what is `lost`, unless infinities made this NaN."""
    cdef Py_ssize_t m, at, n
    cdef vec error
    for m in range(_blocks(columns, V)):
        at, n = start + m * V, columns - m * V
        error = _load(lost + at, n)
        error = vec_if_below(error - error, vec_of(1), error, vec_of(0))
        _add_lanes(sums + at, error, n)
