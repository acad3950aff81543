# Checks of weights, so that no kernel reads or writes outside an array.

cdef int _expect(bint fits, str name) except -1:
    if not fits:
        raise ValueError(f"{name}: its shape does not fit the other arguments")
    return 0


cdef Py_ssize_t _gate_size(W, Py_ssize_t gates) except -1:
    """The number of hidden units of a cell whose W has `gates` rows for each unit."""
    if not (isinstance(W, np.ndarray) and W.ndim == 2 and len(W) and len(W) % gates == 0):
        raise ValueError(f"W_ih: expected a matrix of {gates} rows for each unit, got {W!r:.60}")
    return len(W) // gates


cdef int _expect_weights(W, R, bias_ih, bias_hh, Py_ssize_t rows, Py_ssize_t P) except -1:
    _expect(W.shape[1] >= 1, "W_ih")
    _expect(R.ndim == 2 and R.shape == (rows, P) and P >= 1, "W_hh")
    _expect((bias_ih is None) == (bias_hh is None), "bias_hh")
    _expect(bias_ih is None or bias_ih.shape == (rows,), "bias_ih")
    _expect(bias_hh is None or bias_hh.shape == (rows,), "bias_hh")
    return 0


cdef const real* _panels(panels, list arrays) except? NULL:
    """The data of packed panels, which `arrays` keeps alive."""
    arrays.append(panels)
    return _data(panels)


cdef const real* _vector(vector, list arrays) except? NULL:
    """The data of a copy of `vector`, which `arrays` keeps alive."""
    cdef const real[::1] copy = np.array(vector)  # the memoryview checks the dtype
    arrays.append(np.asarray(copy))
    return &copy[0]
