# Whole calls in C. Where the arithmetic is a step or two, what comes before it is most of the time.

cdef Py_ssize_t _threads(tuple sharing, Py_ssize_t T, Py_ssize_t B) except -1:
    """How many are to compute T steps of B rows, by `sharing` of lstm_call; 0 for none here."""
    cdef Py_ssize_t most_alone, least_rows, most_rows, threads
    most_alone, least_rows, most_rows, threads = sharing
    if T * B <= most_alone or B < least_rows:
        return 1
    return threads if B <= most_rows else 0


def lstm_call(
    packed,
    projection,
    tuple sizes,
    int step_axis,
    int row_axis,
    tuple sharing,
    x,
    state,
    bint keep=False,
):
    """`lstm_forward` with all that is around it, for arrays that need nothing done.

    Parameters
    ----------
    sizes : (inputs, H, P)
    step_axis, row_axis : of x and y; (0, 1), (1, 0), or (-1, 0) for one step without its axis
    sharing : (most_alone, least_rows, most_rows, threads)
        Up to so many pairs of step and row, or with fewer rows, this thread computes alone; with
        up to `most_rows`, `threads` threads together; the rest it does not take.
    x : [T, B, inputs], its axes in their order
    state : (h [1, B, P], c [1, B, H]); without the 1 where x is one step
    keep : for `lstm_call_back`, which knows no projection

    Returns
    -------
    (y, (h, c), gates, cells), all new, the last two None without `keep`; or None where it cannot
    take an argument.
    """
    cdef Forward f
    cdef bint steps = step_axis >= 0
    f.inputs, f.H, f.P = sizes
    _expect(row_axis == (step_axis != 1 and steps) and step_axis <= 1, "step_axis, row_axis")
    if type(state) is not tuple or len(<tuple> state) != 2 or not _is_ready(x, 2 + steps):
        return None
    if keep and projection is not None:
        return None
    h0, c0 = <tuple> state
    cdef Py_ssize_t B = cnp.PyArray_DIM(x, row_axis)
    cdef Py_ssize_t T = cnp.PyArray_DIM(x, step_axis) if steps else 1
    cdef Py_ssize_t threads = _threads(sharing, T, B)
    if (
        T * B == 0
        or threads == 0
        or cnp.PyArray_DIM(x, 1 + steps) != f.inputs
        or not _is_state(h0, steps, B, f.P)
        or not _is_state(c0, steps, B, f.H)
    ):
        return None
    _expect(_is_ready(packed, 4) and cnp.PyArray_ISCARRAY_RO(packed), "packed")
    _expect(cnp.PyArray_DIM(packed, 0) == _blocks(f.H, V), "packed")
    _expect(cnp.PyArray_DIM(packed, 1) == 1 + f.inputs + f.P, "packed")
    _expect(cnp.PyArray_DIM(packed, 2) == 4 and cnp.PyArray_DIM(packed, 3) == V, "packed")
    f.projection = NULL
    if projection is not None:
        _expect(_is_packed(projection, f.P, f.H), "projection")
        f.projection = <const real*> cnp.PyArray_DATA(projection)
    else:
        _expect(f.P == f.H, "sizes")
    _expect(projection is None or threads == 1, "sharing")
    f.packed = <const real*> cnp.PyArray_DATA(packed)
    f.walk = _walk(T, B, None, None, None, False)
    f.training = keep
    gates = cells = None
    if keep:
        gates, cells = _new_gates(T, B, f.H), _new(3, T, B, f.H)
        f.gates, f.cells = _of(gates, 0, 1), _of(cells, 0, 1)
    y = _new(3, B, T, f.P) if step_axis == 1 else _new(2 + steps, T, B, f.P)
    h_n, c_n = _new(2 + steps, 1, B, f.P), _new(2 + steps, 1, B, f.H)
    f.x, f.y = _of(x, step_axis, row_axis), _of(y, step_axis, row_axis)
    f.h0, f.c0 = _of(h0, -1, steps), _of(c0, -1, steps)
    f.h_n, f.c_n = _of(h_n, -1, steps), _of(c_n, -1, steps)
    _lead(_lstm_walk, &f, _forward_scratch(&f), threads)
    return y, (h_n, c_n), gates, cells


def lstm_call_back(
    recurrent,
    transposed,
    bint batch_first,
    tuple sharing,
    x,
    tuple state,
    y,
    gates,
    cells,
    dy,
    dstate,
):
    """All gradients of one layer, for arrays that need nothing done.

    Parameters
    ----------
    recurrent, transposed : from pack(W_hhᵀ [H, 4H]) and pack(W_ihᵀ [I, 4H])
    batch_first : whether dx is to be [B, T, I]
    sharing : as in `lstm_call`
    x, y, dy : [T, B, I], [T, B, H], [T, B, H]
    state : (h [1, B, H], c [1, B, H])
    gates, cells : from `lstm_call`; gates become gradients
    dstate : as state, or None for zeros

    Returns
    -------
    (dx, (dh, dc), dW [4H, I], dR [4H, H], db [4H]), all new; or None, and nothing is changed, where
    it cannot take `dy` or `dstate`, or does not take so much.
    """
    cdef Backward f
    cdef Product into_x
    cdef Outer sums
    _expect(_is_ready(x, 3) and _is_ready(cells, 3), "x, cells")
    cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1)
    cdef Py_ssize_t inputs = cnp.PyArray_DIM(x, 2), H = cnp.PyArray_DIM(cells, 2)
    h0, c0 = state
    _expect(T * B * inputs * H > 0 and _is_steps(cells, T, B, H), "cells")
    _expect(_is_steps(y, T, B, H), "y")
    _expect(_are_gates(gates, T, B, H), "gates")
    _expect(_is_state(h0, True, B, H) and _is_state(c0, True, B, H), "state")
    _expect(_is_packed(recurrent, H, 4 * H), "recurrent")
    _expect(_is_packed(transposed, inputs, 4 * H), "transposed")
    cdef Py_ssize_t threads = _threads(sharing, T, B)
    if threads == 0 or not _is_steps(dy, T, B, H):
        return None
    dh, dc = _zeros(1, B, H), _zeros(1, B, H)
    if dstate is not None:
        if type(dstate) is not tuple or len(<tuple> dstate) != 2:
            return None
        dh_n, dc_n = <tuple> dstate
        if not (_is_state(dh_n, True, B, H) and _is_state(dc_n, True, B, H)):
            return None
        cnp.PyArray_CopyInto(dh, dh_n)
        cnp.PyArray_CopyInto(dc, dc_n)
    dx = _new(3, B, T, inputs) if batch_first else _new(3, T, B, inputs)
    dW, dR, db = _new(2, 0, 4 * H, inputs), _new(2, 0, 4 * H, H), _new(1, 0, 0, 4 * H)
    f.walk = into_x.walk = sums.walk = _walk(T, B, None, None, None, False)
    f.H = f.P = sums.P = H
    into_x.K = sums.M = 4 * H
    into_x.N = sums.N = inputs
    f.recurrent, f.projection = <const real*> cnp.PyArray_DATA(recurrent), NULL
    f.gates = into_x.a = sums.dz = _of(gates, 0, 1)
    f.cells, f.c0, f.dy = _of(cells, 0, 1), _of(c0, -1, 1), _of(dy, 0, 1)
    f.dh, f.dc = _of(dh, -1, 1), _of(dc, -1, 1)
    into_x.panels, into_x.bias = <const real*> cnp.PyArray_DATA(transposed), NULL
    into_x.out, into_x.accumulate = _of(dx, batch_first, not batch_first), False
    sums.x, sums.y, sums.h0, sums.before = _of(x, 0, 1), _of(y, 0, 1), _of(h0, -1, 1), True
    sums.dW, sums.dR = <real*> cnp.PyArray_DATA(dW), <real*> cnp.PyArray_DATA(dR)
    sums.db = <real*> cnp.PyArray_DATA(db)
    _lead(_lstm_walk_back, &f, _backward_scratch(&f), threads)
    _lead(_multiply_all, &into_x, _product_scratch(), threads)
    _lead(_sum_outer, &sums, _outer_scratch(&sums), threads)
    return dx, (dh, dc), dW, dR, db
