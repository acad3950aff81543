# Arrays by pointer, for calls whose arithmetic takes less time than memoryviews of them.

cimport numpy as cnp

cnp.import_array()

cdef int REAL = cnp.NPY_FLOAT32 if sizeof(real) == 4 else cnp.NPY_FLOAT64


cdef inline bint _is_ready(object array, int axes) noexcept:
    """Whether a kernel can read `array` as it is, its last axis by pointer."""
    return (
        cnp.PyArray_CheckExact(array)
        and cnp.PyArray_TYPE(array) == REAL
        and cnp.PyArray_NDIM(array) == axes
        and cnp.PyArray_ISBEHAVED_RO(array)
        and cnp.PyArray_STRIDE(array, axes - 1) == sizeof(real)
    )


cdef inline bint _is_state(object array, bint layer_axis, Py_ssize_t B, Py_ssize_t N) noexcept:
    """Whether `array` can be read as [B, N], or as [1, B, N] with `layer_axis`."""
    return (
        _is_ready(array, 2 + layer_axis)
        and (not layer_axis or cnp.PyArray_DIM(array, 0) == 1)
        and cnp.PyArray_DIM(array, layer_axis) == B
        and cnp.PyArray_DIM(array, 1 + layer_axis) == N
    )


cdef inline bint _is_steps(object array, Py_ssize_t T, Py_ssize_t B, Py_ssize_t N) noexcept:
    """Whether `array` can be read as [T, B, N]."""
    if not _is_ready(array, 3):
        return False
    cdef const cnp.npy_intp* shape = cnp.PyArray_DIMS(array)
    return shape[0] == T and shape[1] == B and shape[2] == N


cdef inline bint _are_gates(object array, Py_ssize_t T, Py_ssize_t B, Py_ssize_t H) noexcept:
    """Whether `array` can be written to as [T, B, 4, H]."""
    if not (_is_ready(array, 4) and cnp.PyArray_ISCARRAY(array)):
        return False
    cdef const cnp.npy_intp* shape = cnp.PyArray_DIMS(array)
    return shape[0] == T and shape[1] == B and shape[2] == 4 and shape[3] == H


cdef inline bint _is_packed(object panels, Py_ssize_t N, Py_ssize_t K) noexcept:
    """Whether `panels` are what `pack` makes of a matrix [N, K]."""
    if not (_is_ready(panels, 4) and cnp.PyArray_ISCARRAY_RO(panels)):
        return False
    cdef const cnp.npy_intp* shape = cnp.PyArray_DIMS(panels)
    return shape[0] == _blocks(N, PANEL) and shape[1] == K and shape[2] == 4 and shape[3] == V


cdef inline object _new(int axes, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
    """[a, b, c], or the last of these axes."""
    cdef cnp.npy_intp[3] shape = [a, b, c]
    return cnp.PyArray_EMPTY(axes, &shape[3 - axes], REAL, 0)


cdef inline object _new_gates(Py_ssize_t T, Py_ssize_t B, Py_ssize_t H):
    cdef cnp.npy_intp[4] shape = [T, B, 4, H]
    return cnp.PyArray_EMPTY(4, shape, REAL, 0)


cdef inline object _zeros(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
    cdef cnp.npy_intp[3] shape = [a, b, c]
    return cnp.PyArray_ZEROS(3, shape, REAL, 0)


cdef inline Series _of(object array, int step_axis, int row_axis) noexcept:
    """`step_axis` is -1 where there is none."""
    cdef Series series
    series.data = cnp.PyArray_BYTES(array)
    series.step = cnp.PyArray_STRIDE(array, step_axis) if step_axis >= 0 else 0
    series.row = cnp.PyArray_STRIDE(array, row_axis)
    return series
