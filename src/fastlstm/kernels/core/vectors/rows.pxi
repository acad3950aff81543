# Sums and products of rows, element by element.

cdef inline void _times(real* out, const real* a, const real* b, Py_ssize_t n) noexcept nogil:
    """out = a * b."""
    cdef Py_ssize_t k, start
    for k in range(_blocks(n, V)):
        start = k * V
        _store(out + start, _load(a + start, n - start) * _load(b + start, n - start), n - start)


cdef inline void _add_lanes(real* target, vec lanes, Py_ssize_t n) noexcept nogil:
    _store(target, _load(target, n) + lanes, n)


cdef inline void _add_to(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    """target += source."""
    cdef Py_ssize_t k, start
    for k in range(_blocks(n, V)):
        start = k * V
        _add_lanes(target + start, _load(source + start, n - start), n - start)
