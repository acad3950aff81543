# One step of an optimizer for one parameter, in one pass over its arrays.

cdef extern from *:
    """
    #ifdef FASTLSTM_FLOAT64
    #define ROOT sqrt
    #else
    #define ROOT sqrtf
    #endif
    #if defined(__GNUC__)
    static inline vec vec_sqrt(vec x) {
        EACH_LANE(x[j] = ROOT(x[j]));
        return x;
    }
    #else
    static inline vec vec_sqrt(vec x) { return ROOT(x); }
    #endif

    /* The arrays of a step: those that it reads, and those that it writes. */
    enum { VALUE, MEAN, SQUARE, VELOCITY, GRADIENT, NEW, ARRAYS = NEW + GRADIENT };

    /* Sets `data` to the data of arrays, or NULL for None. Returns their size; -1 if they are not
       ready, or if one that is read lacks the one that is written. */
    static Py_ssize_t read_arrays(PyObject *arrays, real **data) {
        Py_ssize_t n = -1;
        if (!PyTuple_Check(arrays) || PyTuple_GET_SIZE(arrays) != ARRAYS) return -1;
        for (int k = 0; k < ARRAYS; k++) {
            PyArrayObject *array = (PyArrayObject *) PyTuple_GET_ITEM(arrays, k);
            int flags = k < NEW ? NPY_ARRAY_CARRAY_RO : NPY_ARRAY_CARRAY;
            data[k] = NULL;
            if ((PyObject *) array != Py_None) {
                if (!PyArray_CheckExact(array) || !PyArray_CHKFLAGS(array, flags)
                    || PyArray_TYPE(array) != (sizeof(real) == 4 ? NPY_FLOAT : NPY_DOUBLE)
                    || PyArray_ISBYTESWAPPED(array) || (k && PyArray_SIZE(array) != n)) return -1;
                n = PyArray_SIZE(array);
                data[k] = (real *) PyArray_DATA(array);
            }
            if ((k == VALUE || k == GRADIENT) && !data[k]) return -1;
            if (k >= NEW && !data[k] != !data[k - NEW]) return -1;
        }
        return n;
    }
    """
    vec vec_sqrt(vec x) nogil
    enum:
        VALUE
        MEAN
        SQUARE
        VELOCITY
        GRADIENT
        NEW
        ARRAYS
    Py_ssize_t read_arrays(object arrays, real** data)

cdef extern from "Python.h":
    bint PyArg_ParseTuple(object values, const char* format, ...) except False


cdef struct Rule:  # see `Rule` and `Update` in fastlstm/kernels/arguments.py
    double lr, decay, shrink, beta1, beta2, eps, momentum, centered, nesterov


cdef called_void _update(
    const Rule* rule,
    real** a,  # IN, OUT [ARRAYS] of [n]; NULL for running means that the rule does without
    Py_ssize_t n,
    bint* finite,  # OUT whether all gradients are finite
) noexcept nogil:
    cdef real[ARRAYS][V] block  # the last numbers, if they are fewer than V
    cdef real* ends[ARRAYS]
    cdef Py_ssize_t i, k, at, whole = n // V, rest = n % V * sizeof(real)
    cdef vec p, g, d, square, velocity, mean = vec_of(0), lost = vec_of(0)
    cdef real decay = <real> rule.decay, shrink = <real> rule.shrink, lr = <real> rule.lr
    cdef real beta1 = <real> rule.beta1, rest1 = <real> (1 - rule.beta1)
    cdef real beta2 = <real> rule.beta2, rest2 = <real> (1 - rule.beta2)
    cdef real eps = <real> rule.eps, momentum = <real> rule.momentum
    cdef unsigned int mode = flush_subnormals()
    memset(block, 0, sizeof(block))
    for k in range(_blocks(n, V)):
        at = k
        if k == whole:
            at = 0
            for i in range(ARRAYS):
                if a[i] != NULL:
                    ends[i], a[i] = a[i] + k * V, block[i]
                    memcpy(block[i], ends[i], rest)
        p, g = (<const vec*> a[VALUE])[at], (<const vec*> a[GRADIENT])[at]
        lost += g - g  # 0, or NaN
        if decay != 0:
            g += decay * p
        d = g
        if a[MEAN] != NULL:
            mean = beta1 * (<const vec*> a[MEAN])[at] + rest1 * g
            (<vec*> a[NEW + MEAN])[at] = mean
            if not rule.centered:
                d = mean
        if a[SQUARE] != NULL:
            square = beta2 * (<const vec*> a[SQUARE])[at] + rest2 * (g * g)
            (<vec*> a[NEW + SQUARE])[at] = square
            if rule.centered:  # rounding may make it negative
                square = vec_max(vec_of(0), square - mean * mean)
            d /= vec_sqrt(square) + eps
        if a[VELOCITY] != NULL:
            velocity = momentum * (<const vec*> a[VELOCITY])[at] + d
            (<vec*> a[NEW + VELOCITY])[at] = velocity
            d = d + momentum * velocity if rule.nesterov else velocity
        (<vec*> a[NEW])[at] = shrink * p - lr * d
    for i in range(NEW, ARRAYS):
        if a[i] != NULL and rest:
            memcpy(ends[i], block[i], rest)
    restore_mode(mode)
    finite[0] = vec_sum(lost) == 0


def update(rule, arrays, /):
    """Compute one step of an optimizer: see reference/core/updates.py."""
    cdef Rule r
    cdef real* data[ARRAYS]
    cdef bint finite
    cdef Py_ssize_t n = read_arrays(arrays, data)
    _expect(n >= 0, "arrays")
    PyArg_ParseTuple(
        rule,
        "ddddddddd",
        &r.lr,
        &r.decay,
        &r.shrink,
        &r.beta1,
        &r.beta2,
        &r.eps,
        &r.momentum,
        &r.centered,
        &r.nesterov,
    )
    with nogil:
        _update(&r, data, n, &finite)
    return finite
