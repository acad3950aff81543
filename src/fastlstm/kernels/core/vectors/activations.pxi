# tanh and sigmoid.
#
# tanh(x) = x p(x²) / q(x²) on |x| <= TANH_LIMIT, the minimax fractions of degree 9/8 (float32,
# relative error 2.3e-8) and 19/18 (float64, 7.1e-17), and ±1 beyond. All coefficients are positive,
# so no digits cancel. The largest error with rounding, of 4 million points in three builds, is
# 5.9 ulp (3.6e-7 absolute) in float32 and 8.7e-16 absolute in float64.
# sigmoid(x) = 1/2 + 1/2 tanh(x/2): 2.0e-7 and 4.5e-16 absolute.

cdef extern from *:
    """
    #ifdef FASTLSTM_FLOAT64
    enum { TANH_TERMS = 10 };
    static const real TANH_LIMIT = 19.1;
    static const real TANH_P[TANH_TERMS] = {
        2.4925321809136316634e-23, 7.3953296574012053537e-19, 3.0586769935453668474e-15,
        4.1668301823454245698e-12, 2.4391398347798011077e-9,  6.8284653921200809453e-7,
        9.3589641076288181397e-5,  5.9743614453807052963e-3,  0.15180301061401446795,
        0.99999999999999992916 };
    static const real TANH_Q[TANH_TERMS] = {
        6.2046603125936382536e-21, 5.6202016324605746791e-17, 1.2687780198539308353e-13,
        1.1103095932504217953e-10, 4.4613919893642378592e-8,  8.7518071893747514846e-6,
        8.280453367372697664e-4,  3.4353142761164886668e-2,  0.48513634394734690301,
        1.0 };
    #else
    enum { TANH_TERMS = 5 };
    static const real TANH_LIMIT = 9.1f;
    static const real TANH_P[TANH_TERMS] = {
        1.3177480595594360265e-8f, 2.0481151910447010084e-5f, 3.4878087159682256081e-3f,
        0.13374473144858587568f, 0.99999997718636735372f };
    static const real TANH_Q[TANH_TERMS] = {
        7.7040276714011608562e-7f, 3.2729165299210503649e-4f, 2.5847379462662103291e-2f,
        0.46707786920520918399f, 1.0f };
    #endif
    """
    enum:
        TANH_TERMS
    const real TANH_LIMIT
    const real* TANH_P
    const real* TANH_Q


cdef inline vec _clamp(vec x) noexcept nogil:
    """x limited to ±1; NaN stays NaN."""
    return vec_max(vec_of(-1), vec_min(vec_of(1), x))


cdef inline inlined_void _tanh_fraction(vec x, vec* numerator, vec* denominator) noexcept nogil:
    """tanh(x) as a fraction; beyond TANH_LIMIT it exceeds ±1, so the quotient needs `_clamp`."""
    cdef int k
    cdef vec p = vec_of(TANH_P[0]), q = vec_of(TANH_Q[0])
    cdef vec square = vec_min(vec_of(TANH_LIMIT * TANH_LIMIT), x * x)
    for k in range(1, TANH_TERMS):
        p = p * square + TANH_P[k]
        q = q * square + TANH_Q[k]
    numerator[0] = p * x
    denominator[0] = q


cdef inline vec _tanh(vec x) noexcept nogil:
    cdef vec p, q
    _tanh_fraction(x, &p, &q)
    return _clamp(p / q)


def tanh(x, /):
    """Return tanh of x [n]."""
    cdef const real* source = _numbers(x, 1, "x")
    cdef Py_ssize_t block, start, n = _dim(x, 0)
    result = _new(1, 0, 0, n)
    for block in range(_blocks(n, V)):
        start = block * V
        _store(_data(result) + start, _tanh(_load(source + start, n - start)), n - start)
    return result


def sigmoid(x, /):
    """Return sigmoid of x [n]."""
    return 0.5 + 0.5 * tanh(0.5 * x)
