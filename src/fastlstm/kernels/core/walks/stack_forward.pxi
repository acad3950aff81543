# Forward of a whole call: every layer and direction, from the caller's arrays to new ones.

cdef extern from *:
    """
    enum { ZEROS = 2048 };
    static const double MOST_NUMBERS = 1152921504606846976.0;  /* 2^60 numbers exceed any memory */
    static const real ZERO[ZEROS];
    """
    enum:
        ZEROS
    const double MOST_NUMBERS
    const real* ZERO


cdef const real* _zeros_for(const Stack* m) except NULL:
    """As many zeros as a panel, and as any part of a state; `_free_zeros` frees them."""
    cdef Py_ssize_t most = PANEL, k
    for k in range(m.layers * m.directions):
        most = max(most, m.cells[k].H, m.cells[k].P)
    if most <= ZEROS:
        return ZERO
    cdef void* memory = PyMem_RawCalloc(most, sizeof(real))
    if memory == NULL:
        raise MemoryError(f"expected memory for {most} numbers, got none")
    return <const real*> memory


cdef inline void _free_zeros(const real* zeros) noexcept:
    if zeros != ZERO:
        PyMem_RawFree(<void*> <uintptr_t> zeros)


cdef Py_ssize_t _saved_size(const Cell* cell, Py_ssize_t k, Py_ssize_t T, Py_ssize_t B) noexcept:
    """Reals of a cell's k-th saved array, rounded up to whole cache lines."""
    cdef Py_ssize_t rows = max(cell.saved_shape[k][0], <Py_ssize_t> 1)
    return _padded(T * B * rows * cell.saved_shape[k][1] * sizeof(real)) // sizeof(real)


cdef object _new_block(const Stack* m, Py_ssize_t T, Py_ssize_t B, Py_ssize_t more):
    """Memory for all arrays that training saves in one call, and for `more` reals.

    It is one block: the C library returns free blocks of several sizes to the system, and the page
    faults of the next call would take a tenth of its time.
    """
    cdef Py_ssize_t size = 16 + more, k, n
    size += (
        (m.layers - 1) * _padded(T * B * m.directions * m.cells[0].P * sizeof(real)) // sizeof(real)
    )
    for k in range(m.layers * m.directions):
        for n in range(m.cells[k].saved):
            size += _saved_size(m.cells[k], n, T, B)
    return _new(1, 0, 0, size)


cdef object _from_block(object block, real** free, int axes, cnp.npy_intp* shape, Py_ssize_t size):
    """An array in the next `size` reals of the block."""
    array = cnp.PyArray_SimpleNewFromData(axes, shape, REAL, free[0])
    cnp.set_array_base(array, block)
    free[0] += size
    return array


cdef enum:
    SHORT = 4096  # reals: longer copies lie elsewhere, as larger blocks get new pages in every call


cdef inline bint _needs_copy(object array, object given) noexcept:
    """Whether somebody else may change `array`, a part of the state or x.

    If the kernels have cast it, it is new, and not the array that was given.
    """
    return array is given and array is not None and not _is_fixed(array)


cdef Py_ssize_t _kept_size(object array, object given) noexcept:
    """Reals that `_kept` takes of the block."""
    if not (_needs_copy(array, given) and _is_gapless(array)):
        return 0
    if _size(array) > SHORT:
        return 0
    return _padded(_size(array) * sizeof(real)) // sizeof(real)


cdef object _kept(object array, object given, object block, real** free):
    """`array`, or a copy if somebody else may change it."""
    cdef Py_ssize_t size = _kept_size(array, given)
    if not _needs_copy(array, given):
        return array
    if not size:
        return cnp.PyArray_NewCopy(<cnp.ndarray> array, cnp.NPY_CORDER)
    copy = _from_block(block, free, _ndim(array), cnp.PyArray_DIMS(<cnp.ndarray> array), size)
    memcpy(_data(copy), _data(array), _size(array) * sizeof(real))
    return copy


cdef inline object _kept_other(object array):
    """A copy of lengths or resets."""
    return None if array is None else cnp.PyArray_NewCopy(<cnp.ndarray> array, cnp.NPY_CORDER)


cdef object _new_saved(
    const Cell* cell, Py_ssize_t T, Py_ssize_t B, object block, real** free, Series* series
):
    """The arrays that training saves for one cell, in the block; `series` is set to them."""
    cdef Py_ssize_t k
    cdef int axes
    cdef cnp.npy_intp[4] shape = [T, B, 0, 0]
    cdef list arrays = []
    for k in range(cell.saved):
        axes = 4 if cell.saved_shape[k][0] else 3
        shape[2], shape[axes - 1] = cell.saved_shape[k][0], cell.saved_shape[k][1]
        array = _from_block(block, free, axes, shape, _saved_size(cell, k, T, B))
        series[k] = _of(array, 0, 1)
        arrays.append(array)
    return tuple(arrays)


cdef object _new_steps(const Stack* m, const Arguments* read, Py_ssize_t N, bint fixed):
    """A new array of x's axes with N features; from `_new_fixed` if `fixed`."""
    cdef Py_ssize_t a = read.T, b = read.B
    if not read.batched or m.batch_first:
        a, b = b, a
    cdef cnp.npy_intp[3] shape = [a, b, N]
    if fixed:
        return _new_fixed(read.axes, &shape[3 - read.axes])
    if read.shared:
        return _new_on_line(read.axes, &shape[3 - read.axes], False)
    return _new(read.axes, a, b, N)


cdef bint _is_out(
    const Arguments* read, object out, Py_ssize_t N, object x, object state, object lengths,
    object resets
):
    """Whether `out` is ready for results [T, B, N] and shares no memory with other arguments."""
    if not _is_like_y(read, out, N) or not _is_writeable(out):
        return False
    if _overlaps_itself(out) or _may_overlap(out, x):
        return False
    if lengths is not None and _may_overlap(out, lengths):
        return False
    if resets is not None and _may_overlap(out, resets):
        return False
    if state is None:
        return True
    if type(state) is not tuple:
        return not _may_overlap(out, state)
    for array in <tuple> state:
        if _may_overlap(out, array):
            return False
    return True


def forward(stack, x, state=None, lengths=None, resets=None, out=None, masks=None, bint keep=False):
    """Run every layer and direction over the whole sequence: see reference/core/stack.py.

    Returns (y, state), or (y, state, saved, arguments) with `keep`. Returns NotImplemented if an
    argument is not ready.
    """
    cdef const Stack* m = _stack_of(stack)
    cdef Arguments read
    cdef Series[MOST_STATES] first
    cdef const real* zeros
    cdef Py_ssize_t size, k
    cdef real* free
    cdef bint is_pair
    given_x, given_state = x, state
    x, state = _as_reals(x), _as_reals(state)
    if not _read_axes(m, x, &read) or masks is not None and not keep:
        return NotImplemented
    if masks is not None and not _are_drawn(m, masks, read.T, read.B):
        return NotImplemented
    zeros = _zeros_for(m)
    try:
        if not _read_state(m, &read, state, first, zeros):
            return NotImplemented
        if (lengths is not None or resets is not None) and (
            not _read_walk_of(&read, lengths, resets, read.T)
        ):
            return NotImplemented
        if out is not None and (
            keep
            or m.one_step
            or not _is_out(&read, out, m.directions * m.cells[0].P, x, state, lengths, resets)
        ):
            return NotImplemented
        if <double> (read.T * read.B) * m.directions * m.cells[0].P > MOST_NUMBERS:
            raise MemoryError
        if not keep:
            return _forward(m, &read, x, first, zeros, out, None, None, NULL)
        is_pair = type(state) is tuple
        size = _kept_size(x, given_x)
        if is_pair:
            for k in range(2):
                size += _kept_size((<tuple> state)[k], (<tuple> given_state)[k])
        else:
            size += _kept_size(state, given_state)
        block = _new_block(m, read.T, read.B, size)
        free = <real*> _aligned(_data(block))
        x = _kept(x, given_x, block, &free)
        if is_pair:
            kept = (
                _kept((<tuple> state)[0], (<tuple> given_state)[0], block, &free),
                _kept((<tuple> state)[1], (<tuple> given_state)[1], block, &free),
            )
        else:
            kept = _kept(state, given_state, block, &free)
        y, final, saved = _forward(m, &read, x, first, zeros, None, masks, block, free)
        return y, final, saved, (x, kept, _kept_other(lengths), _kept_other(resets))
    except MemoryError as error:
        raise no_memory(x, m.directions * m.cells[0].P) from error
    finally:
        _free_zeros(zeros)
        PyMem_RawFree(read.order)


cdef object _forward(
    const Stack* m,
    const Arguments* read,
    object x,
    const Series* first,
    const real* zeros,
    object out,
    object masks,
    object block,  # from `_new_block`; None without `keep`
    real* free,  # the unused rest of the block
):
    cdef bint keep = block is not None
    cdef Py_ssize_t T = read.T, B = read.B, D = m.directions, P = m.cells[0].P
    cdef Py_ssize_t layer, direction, k, state, inner_size = T * B * D * P
    cdef Series[MOST_STATES] last
    cdef Series source = _of(x, read.step_axis, read.row_axis), target
    cdef Layer run
    cdef Pass* f
    cdef real* inner = NULL  # [2][T, B, D * P]: outputs of inner layers, where they are not saved
    cdef cnp.npy_intp[3] shape = [T, B, D * P]
    cdef list saved = [] if keep else None, by_direction = None
    final = _new_state(m, read, last, False)
    if m.one_step and not keep:
        y = final if m.cells[0].states == 1 else (<tuple> final)[0]
    elif out is not None:
        y = out
    else:
        y = _new_steps(m, read, D * P, keep)
    if m.layers > 1 and not keep:
        inner = <real*> _scratch((min(m.layers, 3) - 1) * inner_size * sizeof(real))
    run.directions, run.backward = D, False
    try:
        for layer in range(m.layers):
            y_of_layer = y
            if layer == m.layers - 1:
                target = _of(y, read.step_axis, read.row_axis)
            elif keep:
                y_of_layer = _from_block(
                    block, &free, 3, shape, _padded(inner_size * sizeof(real)) // sizeof(real)
                )
                target = _of(y_of_layer, 0, 1)
            else:
                target = _contiguous(inner + (layer & 1) * inner_size, B, D * P)
            if keep:
                by_direction = []
            for direction in range(D):
                k = layer * D + direction
                f = &run.passes[direction]
                f.cell, f.walk, f.zeros, f.training = m.cells[k], read.walk, zeros, keep
                f.walk.reverse = m.reverse[direction]
                f.x, f.y = source, _columns(&target, direction * P)
                for state in range(f.cell.states):
                    _state_of(&f.first[state], &first[state], k)
                    _state_of(&f.last[state], &last[state], k)
                _read_drawn(masks, k, &f.drawn)
                if keep:
                    by_direction.append(_new_saved(f.cell, T, B, block, &free, f.saved))
            run.sharing = _sharing(m, m.cells[layer * D], T, B)
            _run_layer(&run)
            if keep:
                saved.append((y_of_layer, tuple(by_direction)))
            source = target
    finally:
        PyMem_RawFree(inner)
    if not keep:
        return y, final
    return y, final, tuple(saved)
