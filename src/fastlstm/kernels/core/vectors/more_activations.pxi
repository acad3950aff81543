# All the activations that ONNX lists for its recurrent operators, and their slopes.
#
# exp and log are needed below 0 and above 1 only. exp(x) = 2ⁿ exp(r), |r| <= ln 2 / 2, with exp(r)
# by its Taylor series to r⁷ (float32) or r¹³ (float64). log(1 + u) = 2 artanh(u / (2 + u)), by the
# series of artanh to s¹³ or s²⁹ on s <= 1/3. The terms left out of both series are below 1.4e-8
# (float32) or 1.7e-17 (float64), relatively. Softplus has the largest error with rounding: up to
# 1.5e-7 and 3.5e-16 where it is below 1, and 1.2 ulp above. exp(x) is never less than e⁻⁸⁷
# (float32) or e⁻⁷⁰⁸ (float64).

cdef extern from *:
    """
    #include <float.h>
    #include <stdint.h>
    #ifdef FASTLSTM_FLOAT64
    typedef uint64_t bits;
    #define MANTISSA 52
    #define ROUNDER 6755399441055744.0  /* 1.5 * 2^52: the low bits of x + ROUNDER are round(x) */
    static const real LARGEST = DBL_MAX, LEAST = DBL_MIN, EXP_LOWEST = -708,
        LN2_HIGH = 0.693145751953125, LN2_LOW = 1.4286068203094172321e-6;
    enum { EXP_TERMS = 14, LOG_TERMS = 15 };
    #else
    typedef uint32_t bits;
    #define MANTISSA 23
    #define ROUNDER 12582912.0f
    static const real LARGEST = FLT_MAX, LEAST = FLT_MIN, EXP_LOWEST = -87,
        LN2_HIGH = 0.693359375f, LN2_LOW = -2.1219444005469058277e-4f;
    enum { EXP_TERMS = 8, LOG_TERMS = 7 };
    #endif
    static const real EPSILON = sizeof(real) == 8 ? (real) DBL_EPSILON : (real) FLT_EPSILON;
    static const real LOG2_E = (real) 1.4426950408889634074;
    static const real FACTORIALS[14] = {
        1, 1, 2, 6, 24, 120, 720, 5040, 40320, 362880, 3628800, 39916800, 479001600, 6227020800 };

    /* 2^n, where `rounded` is n + ROUNDER for a whole number n. */
    #if defined(__GNUC__)
    typedef bits vec_bits __attribute__((vector_size(VEC_BYTES)));
    static inline vec vec_power_of_2(vec rounded) {
        return (vec) (((vec_bits) rounded << MANTISSA) + (vec_bits) vec_of(1));
    }
    static inline vec vec_abs(vec x) {
        return (vec) ((vec_bits) x & ~(vec_bits) vec_of(-(real) 0));
    }
    #else
    static inline vec vec_power_of_2(vec rounded) {
        bits from, one;
        vec result = 1;
        memcpy(&from, &rounded, sizeof(bits));
        memcpy(&one, &result, sizeof(bits));
        from = (from << MANTISSA) + one;
        memcpy(&result, &from, sizeof(bits));
        return result;
    }
    static inline vec vec_abs(vec x) { return x < 0 ? -x : x; }
    #endif
    """
    enum:
        EXP_TERMS
        LOG_TERMS
    const real LARGEST
    const real LEAST  # the least number above 0, since subnormals are taken for zeros
    const real EPSILON
    const real EXP_LOWEST
    const real LN2_HIGH
    const real LN2_LOW
    const real LOG2_E
    const real ROUNDER
    const real* FACTORIALS
    vec vec_power_of_2(vec rounded) nogil
    vec vec_abs(vec x) nogil


cdef enum Kind:  # as in fastlstm/kernels/arguments.py
    SIGMOID
    TANH
    RELU
    AFFINE
    LEAKY_RELU
    THRESHOLDED_RELU
    SCALED_TANH
    HARD_SIGMOID
    ELU
    SOFTSIGN
    SOFTPLUS


cdef struct Activation:
    Kind kind
    real alpha
    real beta


cdef Activation _activation(int kind, double alpha, double beta) except *:
    cdef Activation result
    if kind < 0 or kind > <int> SOFTPLUS:
        raise ValueError(f"kind: expected 0 to {<int> SOFTPLUS}, got {kind}")
    result.kind, result.alpha, result.beta = <Kind> kind, <real> alpha, <real> beta
    return result


cdef Activation _read_activation(activation) except *:
    """Read the tuple (kind, alpha, beta)."""
    kind, alpha, beta = tuple(activation)
    return _activation(kind, alpha, beta)


cdef inline vec _exp(vec x) noexcept nogil:
    """exp(x) for x <= 0."""
    cdef int k
    cdef real one = 1
    cdef vec rounded, whole, result
    x = vec_max(vec_of(EXP_LOWEST), x)
    rounded = x * LOG2_E + ROUNDER
    whole = rounded - ROUNDER
    x = x - whole * LN2_HIGH - whole * LN2_LOW
    result = vec_of(one / FACTORIALS[EXP_TERMS - 1])
    for k in range(EXP_TERMS - 2, -1, -1):
        result = result * x + one / FACTORIALS[k]
    return result * vec_power_of_2(rounded)


cdef inline vec _log_1_plus(vec u) noexcept nogil:
    """log(1 + u) for 0 <= u <= 1."""
    cdef int k
    cdef real one = 1
    cdef vec two = vec_of(2), s = u / (u + two), square = s * s
    cdef vec result = vec_of(one / (2 * LOG_TERMS - 1))
    for k in range(LOG_TERMS - 2, -1, -1):
        result = result * square + one / (2 * k + 1)
    return two * s * result


cdef inline inlined_void _activate_lanes(
    const Activation* a, vec x, vec* result, vec* slope
) noexcept nogil:
    """The activation at x, and its slope there unless that is NULL."""
    cdef real half = 0.5
    cdef vec one = vec_of(1), zero = vec_of(0), alpha = vec_of(a.alpha), y = x, dy = one
    cdef vec above = vec_of(LEAST)  # what is not below it is above 0, or NaN
    if a.kind == SIGMOID:
        y = half * _tanh(half * x) + half
        dy = y * (one - y)
    elif a.kind == TANH:
        y = _tanh(x)
        dy = one - y * y
    elif a.kind == RELU:
        y = vec_if_below(x, zero, zero, x)
        dy = vec_if_below(x, above, zero, one)
    elif a.kind == AFFINE:
        y = alpha * x + a.beta
        dy = alpha
    elif a.kind == LEAKY_RELU:
        y = vec_if_below(x, zero, alpha * x, x)
        dy = vec_if_below(x, above, alpha, one)
    elif a.kind == THRESHOLDED_RELU:
        y = vec_if_below(x, alpha, zero, x)
        dy = vec_if_below(x, alpha, zero, one)
    elif a.kind == SCALED_TANH:
        y = _tanh(a.beta * x)
        dy = a.beta * alpha * (one - y * y)
        y = alpha * y
    elif a.kind == HARD_SIGMOID:
        x = alpha * x + a.beta
        y = vec_max(zero, vec_min(one, x))
        dy = vec_if_below(vec_of(1 - EPSILON / 2), x, zero, vec_if_below(x, above, zero, alpha))
    elif a.kind == ELU:
        dy = alpha * _exp(vec_min(zero, x))
        y = vec_if_below(x, zero, dy - alpha, x)
        dy = vec_if_below(x, above, dy, one)
    elif a.kind == SOFTSIGN:
        x = vec_max(vec_of(-LARGEST), vec_min(vec_of(LARGEST), x))
        y = x / (one + vec_abs(x))
        dy = one / (one + vec_abs(x))
        dy = dy * dy
    elif a.kind == SOFTPLUS:
        y = vec_max(zero, x) + _log_1_plus(_exp(-vec_abs(x)))
        dy = half * _tanh(half * x) + half
    result[0] = y
    if slope != NULL:
        slope[0] = dy


cdef vec _activate_both(const Activation* a, vec x, vec* slope) noexcept nogil:
    """As `_activate_lanes`, but not inlined: for callers whose speed does not need that."""
    cdef vec y
    _activate_lanes(a, x, &y, slope)
    return y


cdef inline vec _activate(const Activation* a, vec x) noexcept nogil:
    return _activate_both(a, x, NULL)


cdef inline vec _activate_clipped(const Activation* a, real clip, vec x, vec* slope) noexcept nogil:
    """As `_activate_both` at x limited to ±clip; the slope is 0 beyond ±clip."""
    cdef vec above = vec_of(clip), below = vec_of(-clip), zero = vec_of(0), y
    if clip == <real> INFINITY:
        return _activate_both(a, x, slope)
    y = _activate_both(a, vec_max(below, vec_min(above, x)), slope)
    if slope != NULL:
        slope[0] = vec_if_below(x, below, zero, vec_if_below(above, x, zero, slope[0]))
    return y


cdef inline real _number(object value) except? -1:
    """A Python number as a real, by way of double, since Cython takes every `real` for a float."""
    return <real> <double> value


cdef object _activate_all(const Activation* a, object x, bint slopes):
    """The activation of x [n], or its slopes, in a new array."""
    cdef const real* source = _numbers(x, 1, "x")
    cdef Py_ssize_t block, start, n = _dim(x, 0)
    cdef vec y, slope
    result = _new(1, 0, 0, n)
    for block in range(_blocks(n, V)):
        start = block * V
        y = _activate_both(a, _load(source + start, n - start), &slope if slopes else NULL)
        _store(_data(result) + start, slope if slopes else y, n - start)
    return result


def activate(int kind, double alpha, double beta, x, /):
    """Return an activation of x [n]: see reference/core/activations.py."""
    cdef Activation a = _activation(kind, alpha, beta)
    return _activate_all(&a, x, False)


def activation_slope(int kind, double alpha, double beta, x, /):
    """Return the derivative of an activation at x [n]."""
    cdef Activation a = _activation(kind, alpha, beta)
    return _activate_all(&a, x, True)
