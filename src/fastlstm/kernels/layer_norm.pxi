# A row to mean 0 and variance 1, and its gradient (Ba, Kiros & Hinton 2016, eq. 3).

cdef enum:
    # Rows of the array that holds a normalised layer's vectors.
    INPUT_GAIN = 0  # 4: of W x
    HIDDEN_GAIN = 4  # 4: of R h
    GATE_BIAS = 8  # 4
    CELL_GAIN = 12
    CELL_BIAS = 13
    NORM_ROWS = 14


cdef inline real _standardise(real* x, Py_ssize_t stride, Py_ssize_t H) noexcept nogil:
    """(x − mean) / √(variance + ε) in place; returns what it was scaled by.

    x is H numbers in blocks of V, `stride` apart, with zeros behind the last.
    """
    cdef Py_ssize_t b, blocks = _blocks(H, V)
    cdef vec sums = vec_of(0), squares = vec_of(0), lanes
    cdef real mean, scale, epsilon = 1e-5, one = 1
    for b in range(blocks):
        sums += (<const vec*> (x + b * stride))[0]
    mean = vec_sum(sums) / H
    for b in range(blocks):
        lanes = _load(x + b * stride, H - b * V)
        lanes -= mean
        if H - b * V < V:  # behind the end stay zeros
            (<vec*> (x + b * stride))[0] = vec_of(0)
            _store(x + b * stride, lanes, H - b * V)
            lanes = (<const vec*> (x + b * stride))[0]
        else:
            (<vec*> (x + b * stride))[0] = lanes
        squares += lanes * lanes
    scale = one / <real> sqrt(vec_sum(squares) / H + epsilon)
    for b in range(blocks):
        (<vec*> (x + b * stride))[0] *= scale
    return scale


cdef inline void _standardise_backward(
    const real* dy,  # [H] gradient of gain * normal
    const real* normal,  # [H] what `_standardise` gave; may be dx
    real scale,
    const real* gain,  # [H]
    real* dx,  # OUT [H] gradient of what `_standardise` took
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
        _store(d_gain + start, _load(d_gain + start, H - start) + d * x, H - start)
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
