# Layer norm of a row: mean 0 and variance 1, and the gradient (Ba, Kiros & Hinton 2016, eq. 3).

cdef inline real _standardize(
    real* x,  # IN, OUT [⌈H / V⌉] blocks of V, with zeros after the last of the H numbers
    Py_ssize_t stride,  # reals from a block of x to the next
    Py_ssize_t H,
    real* copy,  # OUT [H], or NULL
) noexcept nogil:
    """x = (x − mean) / √(variance + ε); returns 1 / √(variance + ε)."""
    cdef Py_ssize_t b, blocks = _blocks(H, V)
    cdef vec sums = vec_of(0), squares = vec_of(0), lanes
    cdef real mean, scale, epsilon = 1e-5, one = 1
    for b in range(blocks):
        sums += (<const vec*> (x + b * stride))[0]
    mean = vec_sum(sums) / H
    for b in range(blocks):
        lanes = (<const vec*> (x + b * stride))[0] - mean
        if H - b * V < V:
            lanes = vec_first(lanes, <int> (H - b * V))
        squares += lanes * lanes
    scale = one / <real> sqrt(vec_sum(squares) / H + epsilon)
    for b in range(blocks):
        lanes = ((<const vec*> (x + b * stride))[0] - mean) * scale
        if H - b * V < V:
            lanes = vec_first(lanes, <int> (H - b * V))
        (<vec*> (x + b * stride))[0] = lanes
        if copy != NULL:
            _store(copy + b * V, lanes, H - b * V)
    return scale


cdef inline void _standardize_backward(
    const real* dy,  # [H] gradient of gain * normal
    const real* normal,  # [H] the x that `_standardize` left; may be the same memory as dx
    real scale,  # the number that `_standardize` returned
    const real* gain,  # [H]
    real* dx,  # OUT [H] gradient of the x that `_standardize` was given
    real* d_gain,  # [H]: added to
    Py_ssize_t H,
) noexcept nogil:
    cdef Py_ssize_t start, b, blocks = _blocks(H, V)
    cdef vec sums = vec_of(0), products = vec_of(0), d, x
    cdef real mean, slope
    for b in range(blocks):
        start = b * V
        d = _load(dy + start, H - start)
        x = _load(normal + start, H - start)
        _add_lanes(d_gain + start, d * x, H - start)
        d *= _load(gain + start, H - start)
        sums += d
        products += d * x
    mean = vec_sum(sums) / H
    slope = vec_sum(products) / H
    for b in range(blocks):
        start = b * V
        d = _load(dy + start, H - start) * _load(gain + start, H - start)
        x = _load(normal + start, H - start)
        _store(dx + start, (d - mean - x * slope) * scale, H - start)
