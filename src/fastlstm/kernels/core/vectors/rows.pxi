# Sums and products of rows, element by element.

cdef inline vec _where(vec flags, vec chosen, vec otherwise) noexcept nogil:
    """`chosen` where a flag, or a factor of dropout, is above 0."""
    return vec_if_below(vec_of(0), flags, chosen, otherwise)


cdef inline vec _drop(vec lanes, vec factors) noexcept nogil:
    """lanes * factors; 0 where the factor is 0, even in place of inf or NaN."""
    return _where(factors, lanes * factors, vec_of(0))


cdef inline void _drop_row(
    real* out, const real* row, const real* factors, Py_ssize_t n
) noexcept nogil:
    cdef Py_ssize_t k, start
    cdef vec lanes
    for k in range(_blocks(n, V)):
        start = k * V
        lanes = _drop(_load(row + start, n - start), _load(factors + start, n - start))
        _store(out + start, lanes, n - start)


cdef inline void _add_lanes(real* target, vec lanes, Py_ssize_t n) noexcept nogil:
    _store(target, _load(target, n) + lanes, n)


cdef inline void _add_to(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    """target += source."""
    cdef Py_ssize_t k, start
    for k in range(_blocks(n, V)):
        start = k * V
        _add_lanes(target + start, _load(source + start, n - start), n - start)


cdef inline void _prefetch_row(const real* row, Py_ssize_t n) noexcept nogil:
    """Fetch n numbers, all their lines at once, where other threads have written some.

    Otherwise each line is waited for where it is read: 2 to 8 % of the time of small steps, on
    cores that need 270 ns to see each other's writes.
    """
    cdef Py_ssize_t line
    for line in range(_blocks(n, V * VECS_OF_LINE)):
        PREFETCH(row + line * V * VECS_OF_LINE)
