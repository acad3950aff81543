# Checks of weights, so that no kernel reads or writes outside an array.

cdef int _expect(bint fits, str name) except -1:
    if not fits:
        raise ValueError(f"{name}: its shape does not fit the other arguments")
    return 0


cdef int _expect_shape(array, Py_ssize_t N, Py_ssize_t K, str name) except -1:
    """Raise unless `array` is [N, K], or [N] if K is 0."""
    cdef Matrix read = _matrix(array, name)
    if K == 0:
        return _expect(read.axes == 1 and read.N == N, name)
    return _expect(read.axes == 2 and read.N == N and read.K == K, name)


cdef Py_ssize_t _gate_size(W, Py_ssize_t gates) except -1:
    """The number of hidden units of a cell whose W has `gates` rows for each unit."""
    if not (isinstance(W, np.ndarray) and W.ndim == 2 and len(W) and len(W) % gates == 0):
        raise ValueError(f"W_ih: expected a matrix of {gates} rows for each unit, got {W!r:.60}")
    return len(W) // gates


cdef struct Weights:
    Matrix W
    Matrix R
    Matrix bias_ih
    Matrix bias_hh


cdef Weights _read_weights(W, R, bias_ih, bias_hh, Py_ssize_t rows, Py_ssize_t P) except *:
    cdef Weights read
    read.W, read.R = _matrix(W, "W_ih"), _matrix(R, "W_hh")
    read.bias_ih, read.bias_hh = _matrix(bias_ih, "bias_ih"), _matrix(bias_hh, "bias_hh")
    _expect(read.W.K >= 1, "W_ih")
    _expect(read.R.axes == 2 and read.R.N == rows and read.R.K == P >= 1, "W_hh")
    _expect((bias_ih is None) == (bias_hh is None), "bias_hh")
    _expect(bias_ih is None or read.bias_ih.axes == 1 and read.bias_ih.N == rows, "bias_ih")
    _expect(bias_hh is None or read.bias_hh.axes == 1 and read.bias_hh.N == rows, "bias_hh")
    return read


cdef inline real _bias(const Weights* weights, Py_ssize_t row) noexcept nogil:
    return _element(&weights.bias_ih, row, 0) + _element(&weights.bias_hh, row, 0)


cdef const real* _panels(panels, list arrays) except? NULL:
    """The data of packed panels, which `arrays` keeps alive."""
    arrays.append(panels)
    return _data(panels)


cdef const real* _vector(vector, list arrays) except? NULL:
    """The data of a copy of `vector`, which `arrays` keeps alive."""
    copy = np.array(vector)
    _numbers(copy, 1, "vector")
    return _panels(copy, arrays)
