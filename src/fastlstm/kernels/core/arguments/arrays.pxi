# NumPy arrays by pointer: memoryviews of all arrays would take most of the time of a short call.

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.ref cimport PyObject

cnp.import_array()

cdef extern from *:
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef FASTLSTM_FLOAT64
    typedef float other_real;
    #else
    typedef double other_real;
    #endif

    /* Returns 0 if a finite number became infinite. */
    static int cast_reals(real *target, const other_real *source, Py_ssize_t n) {
    #ifdef FASTLSTM_FLOAT64
        for (Py_ssize_t k = 0; k < n; k++) target[k] = source[k];
    #else
        const int32_t infinity = 0x7f800000;
        int32_t largest = 0, bits;
        for (Py_ssize_t k = 0; k < n; k++) {
            target[k] = (real) source[k];
            memcpy(&bits, &target[k], sizeof(bits));
            bits &= 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        if (largest >= infinity)
            for (Py_ssize_t k = 0; k < n; k++)
                if (isinf(target[k]) && isfinite(source[k])) return 0;
    #endif
        return 1;
    }
    """
    ctypedef float other_real
    bint cast_reals(real* target, const other_real* source, Py_ssize_t n)

cdef int REAL = cnp.NPY_FLOAT32 if sizeof(real) == 4 else cnp.NPY_FLOAT64
cdef int OTHER_REAL = cnp.NPY_FLOAT64 if sizeof(real) == 4 else cnp.NPY_FLOAT32


# What NumPy knows of an array. The argument must be one: nothing here checks that.

cdef inline int _ndim(object array) noexcept:
    return cnp.PyArray_NDIM(<cnp.ndarray> array)


cdef inline Py_ssize_t _dim(object array, int axis) noexcept:
    return cnp.PyArray_DIM(<cnp.ndarray> array, axis)


cdef inline Py_ssize_t _byte_stride(object array, int axis) noexcept:
    return cnp.PyArray_STRIDE(<cnp.ndarray> array, axis)


cdef inline Py_ssize_t _size(object array) noexcept:
    return cnp.PyArray_SIZE(<cnp.ndarray> array)


cdef inline int _dtype(object array) noexcept:
    return cnp.PyArray_TYPE(<cnp.ndarray> array)


cdef inline char* _bytes(object array) noexcept:
    return cnp.PyArray_BYTES(<cnp.ndarray> array)


cdef inline real* _data(object array) noexcept:
    return <real*> _bytes(array)


cdef inline bint _is_behaved(object array) noexcept:
    """Whether its elements are aligned and in the machine's byte order."""
    return cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> array)


cdef inline bint _is_gapless(object array) noexcept:
    """Whether it is behaved and its elements lie one after another."""
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> array)


cdef inline bint _is_writeable(object array) noexcept:
    return cnp.PyArray_ISWRITEABLE(<cnp.ndarray> array)


cdef inline object _as_reals(object given):
    """`given`, an array or a tuple of two arrays, with those of the other float dtype cast.

    This loop casts arrays without gaps in a tenth of the time of NumPy's cast. It leaves other
    arrays as they are, and those with a number beyond the range of float32.
    """
    if type(given) is not tuple:
        return _as_real(given)
    if len(<tuple> given) != 2 or not (
        _is_other_real((<tuple> given)[0]) or _is_other_real((<tuple> given)[1])
    ):
        return given
    return _as_real((<tuple> given)[0]), _as_real((<tuple> given)[1])


cdef inline bint _is_other_real(object array) noexcept:
    return (
        cnp.PyArray_CheckExact(array)
        and _dtype(array) == OTHER_REAL
        and _is_gapless(array)
    )


cdef inline object _as_real(object array):
    return _cast(array) if _is_other_real(array) else array


cdef object _cast(object array):
    cast = cnp.PyArray_EMPTY(_ndim(array), cnp.PyArray_DIMS(<cnp.ndarray> array), REAL, 0)
    cdef bint fits = cast_reals(
        _data(cast),
        <const other_real*> cnp.PyArray_DATA(<cnp.ndarray> array),
        _size(array),
    )
    return cast if fits else array


cdef inline bint _is_ready(object array, int axes) noexcept:
    """Whether a kernel can read `array` without a copy: by pointer along its last axis."""
    return (
        cnp.PyArray_CheckExact(array)
        and _dtype(array) == REAL
        and _ndim(array) == axes
        and _is_behaved(array)
        and (
            _byte_stride(array, axes - 1) == sizeof(real)
            or _dim(array, axes - 1) == 1
            or _size(array) == 0
        )
    )


cdef inline bint _is_dense(object array) noexcept:
    """Whether an array of any shape has this build's dtype and no gaps."""
    return _dtype(array) == REAL and _is_gapless(array)


cdef inline bint _is_packed(object panels, Py_ssize_t N, Py_ssize_t K) noexcept:
    """Whether `panels` has the shape that `pack` gives a matrix [N, K]."""
    if not (_is_ready(panels, 4) and _is_gapless(panels)):
        return False
    cdef const cnp.npy_intp* shape = cnp.PyArray_DIMS(<cnp.ndarray> panels)
    return shape[0] == _blocks(N, PANEL) and shape[1] == K and shape[2] == 4 and shape[3] == V


cdef inline object _new(int axes, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c):
    """An uninitialized array of the last `axes` of the axes [a, b, c]."""
    cdef cnp.npy_intp[3] shape = [a, b, c]
    return cnp.PyArray_EMPTY(axes, &shape[3 - axes], REAL, 0)


cdef inline Py_ssize_t _line_size(int axes, const cnp.npy_intp* shape) noexcept:
    """Bytes of memory in which an array of the shape can begin on a cache line."""
    cdef Py_ssize_t size = sizeof(real)
    cdef int axis
    for axis in range(axes):
        size *= shape[axis]
    return size + 64


cdef inline object _on_line(object memory, void* data, int axes, cnp.npy_intp* shape):
    """An array in the `data` of `memory`, from its first cache line on."""
    array = cnp.PyArray_SimpleNewFromData(axes, shape, REAL, _aligned(data))
    cnp.set_array_base(array, memory)
    return array


cdef object _new_on_line(int axes, cnp.npy_intp* shape, bint zeros):
    """A new array that begins on a cache line.

    Where threads write parts of the same rows, a line with the end of one part and the begin of the
    next goes to and fro between their cores.
    """
    cdef cnp.npy_intp size = _line_size(axes, shape) // <Py_ssize_t> sizeof(real)
    if zeros:
        memory = cnp.PyArray_ZEROS(1, &size, REAL, 0)
    else:
        memory = cnp.PyArray_EMPTY(1, &size, REAL, 0)
    return _on_line(memory, _data(memory), axes, shape)


cdef object _new_fixed(int axes, cnp.npy_intp* shape):
    """A new read-only array; its memory is a bytes object, so that nobody can write to it later."""
    memory = PyBytes_FromStringAndSize(NULL, _line_size(axes, shape))
    array = _on_line(memory, PyBytes_AS_STRING(memory), axes, shape)
    cnp.PyArray_CLEARFLAGS(<cnp.ndarray> array, cnp.NPY_ARRAY_WRITEABLE)
    return array


cdef object _aligned_empty(tuple shape, bint padded):
    """An array whose data begins on a cache line: other panels are slower by a third.

    The memory is NumPy's, which asks the system for huge pages from 4 MB on: 4 to 9 % of the time
    at (20, 1, 1024, 1024). With `padded`, the last part along its first axis is 0.
    """
    cdef cnp.npy_intp[4] sizes
    cdef int axis, axes = <int> len(shape)
    cdef Py_ssize_t size
    for axis in range(axes):
        sizes[axis] = shape[axis]
    array = _new_on_line(axes, sizes, False)
    if padded:
        size = cnp.PyArray_NBYTES(<cnp.ndarray> array) // sizes[0]
        memset(<char*> _data(array) + (sizes[0] - 1) * size, 0, size)
    return array


cdef bint _is_fixed(object array) noexcept:
    """Whether nobody can change `array`, since its memory is a bytes object."""
    cdef PyObject* base = cnp.PyArray_BASE(<cnp.ndarray> array)
    while base != NULL and cnp.PyArray_CheckExact(<object> base):
        base = cnp.PyArray_BASE(<cnp.ndarray> base)
    return base != NULL and PyBytes_CheckExact(<object> base)


cdef inline Py_ssize_t _axis_stride(object array, int axis) noexcept:
    """Bytes from one index of `axis` to the next; 0 for axis -1, which stands for no axis."""
    return _byte_stride(array, axis) if axis >= 0 else 0


cdef struct Matrix:
    # An array [N, K] by pointer; [N] has a K of 1.
    int axes  # 0 for None
    const char* data
    Py_ssize_t N
    Py_ssize_t K
    Py_ssize_t row  # bytes from a row to the next
    Py_ssize_t column  # bytes from a column to the next


cdef Matrix _matrix(object array, str name) except *:
    """A vector, a matrix or None."""
    cdef Matrix result
    memset(&result, 0, sizeof(result))
    if array is None:
        return result
    if not (
        cnp.PyArray_Check(array)
        and _dtype(array) == REAL
        and _is_behaved(array)
        and 1 <= _ndim(array) <= 2
    ):
        raise ValueError(f"{name}: expected a matrix of this build's dtype, got {array!r:.60}")
    result.axes, result.data = _ndim(array), _bytes(array)
    result.N, result.row, result.K = _dim(array, 0), _byte_stride(array, 0), 1
    if result.axes == 2:
        result.K, result.column = _dim(array, 1), _byte_stride(array, 1)
    return result


cdef real* _numbers(object array, int axes, str name) except? NULL:
    """The data of an array without gaps."""
    if not (
        cnp.PyArray_Check(array)
        and _ndim(array) == axes
        and _is_dense(array)
    ):
        raise ValueError(
            f"{name}: expected {axes} axes of this build's dtype without gaps, got {array!r:.60}"
        )
    return _data(array)


cdef inline real _element(const Matrix* matrix, Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    return (<const real*> (matrix.data + n * matrix.row + k * matrix.column))[0]


cdef inline Series _of(object array, int step_axis, int row_axis) noexcept:
    """`array` as a series with these axes of steps and rows; -1 for an axis that it lacks."""
    cdef Series series
    series.data = _bytes(array)
    series.step, series.row = _axis_stride(array, step_axis), _axis_stride(array, row_axis)
    return series


cdef void _extent(object array, uintptr_t* low, uintptr_t* high) noexcept:
    """The address of the first byte of `array`, and the address after its last byte."""
    cdef int axis
    cdef Py_ssize_t reach
    low[0] = high[0] = <uintptr_t> cnp.PyArray_DATA(<cnp.ndarray> array)
    if _is_gapless(array):
        high[0] += cnp.PyArray_NBYTES(<cnp.ndarray> array)
        return
    high[0] += cnp.PyArray_ITEMSIZE(<cnp.ndarray> array)
    for axis in range(_ndim(array)):
        if _dim(array, axis) == 0:
            high[0] = low[0]
            return
        reach = (_dim(array, axis) - 1) * _byte_stride(array, axis)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach


cdef bint _may_overlap(object a, object b) noexcept:
    cdef uintptr_t low_a, high_a, low_b, high_b
    _extent(a, &low_a, &high_a)
    _extent(b, &low_b, &high_b)
    return low_a < high_b and low_b < high_a


cdef inline bint _overlaps_itself(object array) noexcept:
    """Whether two elements of `array` may share memory."""
    return not _is_gapless(array) and _strides_overlap(array)


cdef bint _strides_overlap(object array) noexcept:
    """Whether two elements may share memory, by the strides.

    They may if the stride of an axis is less than the extent of all axes of smaller strides.
    """
    cdef int a, b
    cdef Py_ssize_t stride, reach
    if _size(array) == 0:
        return False
    for a in range(_ndim(array)):
        if _dim(array, a) <= 1:
            continue
        stride = abs(_byte_stride(array, a))
        reach = cnp.PyArray_ITEMSIZE(<cnp.ndarray> array)
        for b in range(_ndim(array)):
            if b != a and _dim(array, b) > 1:
                if abs(_byte_stride(array, b)) <= stride:
                    reach += (_dim(array, b) - 1) * abs(_byte_stride(array, b))
        if stride < reach:
            return True
    return False
