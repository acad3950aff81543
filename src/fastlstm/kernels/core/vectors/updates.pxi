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

cdef extern from "Python.h":
    bint PyArg_ParseTuple(object values, const char* format, ...) except False


cdef struct Rule:  # see `Rule` in fastlstm/kernels/arguments.py
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


cdef inline bint _is_like(object array, object other) noexcept:
    """Whether `array` is ready, without gaps, and of the shape of `other`."""
    return (
        cnp.PyArray_CheckExact(array)
        and _is_dense(array)
        and cnp.PyArray_SAMESHAPE(<cnp.ndarray> array, <cnp.ndarray> other)
    )


cdef inline object _new_like(object array, real** data):
    """An uninitialized array of an array's shape, whose data `data` is set to."""
    new = cnp.PyArray_EMPTY(_ndim(array), cnp.PyArray_DIMS(<cnp.ndarray> array), REAL, 0)
    data[0] = _data(new)
    return new


def update(rule, p, moments, g, /):
    """Compute one step of an optimizer: see reference/core/updates.py.

    Returns NotImplemented if g is not ready.
    """
    cdef Rule r
    cdef real* data[ARRAYS]
    cdef bint finite
    cdef Py_ssize_t k, n
    cdef list new = []
    _expect(cnp.PyArray_CheckExact(p) and _is_dense(p), "p")
    _expect(isinstance(moments, tuple) and len(<tuple> moments) == GRADIENT - MEAN, "moments")
    if not _is_like(g, p):
        return NotImplemented
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
    n = _size(p)
    data[VALUE], data[GRADIENT] = _data(p), _data(g)
    new_p = _new_like(p, &data[NEW])
    for k, old in enumerate(<tuple> moments, MEAN):
        data[k] = data[NEW + k] = NULL
        if old is not None:
            _expect(_is_like(old, p), "moments")
            data[k] = _data(old)
            old = _new_like(p, &data[NEW + k])
        new.append(old)
    with nogil:
        _update(&r, data, n, &finite)
    return (new_p, tuple(new)) if finite else None
