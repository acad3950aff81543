# Backward of a whole call: all gradients, in new arrays.

cdef int _read_saved(
    const Cell* cell, Py_ssize_t T, Py_ssize_t B, object arrays, Series* series
) except -1:
    """Check the arrays that `_new_saved` made, and set `series` to them."""
    cdef Py_ssize_t k
    cdef int axes
    cdef tuple kept = arrays
    _expect(len(kept) == cell.saved, "saved")
    for k in range(cell.saved):
        array = kept[k]
        axes = 4 if cell.saved_shape[k][0] else 3
        _expect(_is_ready(array, axes) and cnp.PyArray_ISCARRAY(<cnp.ndarray> array), "saved")
        _expect(_dim(array, 0) == T and _dim(array, 1) == B, "saved")
        _expect(_dim(array, axes - 1) == cell.saved_shape[k][1], "saved")
        _expect(axes == 3 or _dim(array, 2) == cell.saved_shape[k][0], "saved")
        series[k] = _of(array, 0, 1)
    return 0


cdef object _new_gradients(const Cell* cell):
    cdef Py_ssize_t k
    cdef list arrays = []
    for k in range(cell.gradients):
        if cell.gradient_shape[k][1]:
            arrays.append(_new(2, 0, cell.gradient_shape[k][0], cell.gradient_shape[k][1]))
        else:
            arrays.append(_new(1, 0, 0, cell.gradient_shape[k][0]))
    return tuple(arrays)


cdef void _find_gradients(tuple arrays, real** gradients):
    cdef Py_ssize_t k
    for k in range(len(arrays)):
        gradients[k] = _data(arrays[k])


cdef const char* SUMS = "fastlstm.sums"


cdef struct Sums:
    # The gradients of parameters, as sums over the steps of one or several calls of `backward`.
    const Stack* stack
    Py_ssize_t steps  # of all calls
    Py_ssize_t B
    Py_ssize_t later  # steps of the calls until now
    Py_ssize_t summed  # rows of the batch in these steps
    Py_ssize_t slots
    void** memory  # for each cell: of `row_sums`, and of MOST_SUMS sums; NULL until used


cdef void _drop_sums(object capsule) noexcept:
    cdef Sums* sums
    cdef Py_ssize_t k
    if PyCapsule_IsValid(capsule, SUMS):
        kept = <object> PyCapsule_GetContext(capsule)
        sums = <Sums*> PyCapsule_GetPointer(capsule, SUMS)
        for k in range(sums.slots):
            PyMem_RawFree(sums.memory[k])
        PyMem_RawFree(sums)
        Py_DECREF(kept)


def new_sums(stack, Py_ssize_t steps, Py_ssize_t B, /):
    """Return sums of gradients for calls of `backward`: see reference/core/stack.py.

    A capsule, whose context is (stack, gradients): for each cell, a tuple of arrays.
    """
    cdef const Stack* m = _stack_of(stack)
    cdef Py_ssize_t k, cells = m.layers * m.directions, slots = cells * (1 + MOST_SUMS)
    kept = stack, tuple([_new_gradients(m.cells[k]) for k in range(cells)])
    cdef Sums* sums = <Sums*> PyMem_RawCalloc(1, sizeof(Sums) + slots * sizeof(void*))
    if sums == NULL:
        raise MemoryError("expected memory for sums of gradients, got none")
    sums.stack, sums.steps, sums.B, sums.slots = m, steps, B, slots
    sums.memory = <void**> (sums + 1)
    capsule = PyCapsule_New(sums, SUMS, _drop_sums)
    Py_INCREF(kept)
    PyCapsule_SetContext(capsule, <void*> kept)
    return capsule


def backward(
    stack, x, state, lengths, resets, masks, saved, dy, dstate,
    bint with_x=True, sums=None, into=None, /
):
    """Return all gradients of a call of `forward` with `keep`: see reference/core/stack.py.

    Returns (dx, dstate, gradients): no dx without `with_x`, a tuple for each cell. Returns
    NotImplemented if an argument is not ready. Arrays in `saved` are overwritten.
    """
    cdef const Stack* m = _stack_of(stack)
    cdef Arguments read
    cdef Series[MOST_STATES] first, last
    cdef const real* zeros
    cdef Sums* own
    x, state, dy, dstate = _as_reals(x), _as_reals(state), _as_reals(dy), _as_reals(dstate)
    if not _read_axes(m, x, &read):
        return NotImplemented
    if dy is not None and not _is_like_y(&read, dy, m.directions * m.cells[0].P):
        return NotImplemented
    if masks is not None and not _are_drawn(m, masks, read.T, read.B):
        return NotImplemented
    if into is not None:
        _expect(_is_like_y(&read, into, m.cells[0].inputs), "into")
        _expect(_is_writeable(into) and not _overlaps_itself(into), "into")
    zeros = _zeros_for(m)
    try:
        if sums is None:
            sums = new_sums(stack, read.T, read.B)
        own = <Sums*> PyCapsule_GetPointer(sums, SUMS)
        _expect(own.stack == m and own.B == read.B and own.later + read.T <= own.steps, "sums")
        if not (
            _read_state(m, &read, state, first, zeros)
            and _read_state(m, &read, dstate, last, zeros)
            and (
                lengths is None
                and resets is None
                or _read_walk_of(&read, lengths, resets, own.steps)
            )
        ):
            return NotImplemented
        gradients = (<tuple> <object> PyCapsule_GetContext(sums))[1]
        return _backward(
            m, &read, x, first, zeros, masks, saved, dy, dstate, with_x, own, gradients, into
        )
    except MemoryError as error:
        raise no_memory(x, m.directions * m.cells[0].P) from error
    finally:
        _free_zeros(zeros)
        PyMem_RawFree(read.order)


cdef object _backward(
    const Stack* m,
    const Arguments* read,
    object x,
    const Series* first,
    const real* zeros,
    object masks,
    tuple saved,
    object dy,
    object dstate,
    bint with_x,
    Sums* sums,
    tuple gradients,
    object into,
):
    cdef Py_ssize_t T = read.T, B = read.B, D = m.directions, P = m.cells[0].P
    cdef Py_ssize_t layer, direction, k, state, threads
    cdef Series[MOST_STATES] d
    cdef Series source = _of(x, read.step_axis, read.row_axis), y, d_target, d_source
    cdef Layer run
    cdef Pass* f
    cdef void* scratch
    cdef real* inner = NULL  # [2][T, B, D * P]: gradients of the outputs of inner layers
    cdef tuple pair, kept
    cdef bint ends = sums.later + T == sums.steps
    _expect(len(saved) == m.layers, "saved")
    for k in range(m.layers * D):
        if m.cells[k].transposed == NULL:
            raise ValueError("stack: expected cells that were packed with backward=True")
    dx = None
    if with_x:
        dx = _new_steps(m, read, m.cells[0].inputs, False) if into is None else into
    d_first = _new_state(m, read, d, True)
    if dstate is not None and m.cells[0].states == 1:
        cnp.PyArray_CopyInto(d_first, dstate)
    elif dstate is not None:
        for k in range(m.cells[0].states):
            cnp.PyArray_CopyInto((<tuple> d_first)[k], (<tuple> dstate)[k])
    d_source.data, d_source.step, d_source.row = NULL, 0, 0
    if dy is not None:
        d_source = _of(dy, read.step_axis, read.row_axis)
    if m.layers > 1:
        inner = <real*> _scratch(2 * T * B * D * P * sizeof(real))
    run.directions, run.backward = D, True
    try:
        for layer in range(m.layers - 1, -1, -1):
            pair = saved[layer]
            y_of_layer, kept = pair
            if layer == m.layers - 1:
                _expect(_is_like_y(read, y_of_layer, D * P), "saved")
                y = _of(y_of_layer, read.step_axis, read.row_axis)
            else:
                y = source
            if layer == 0:
                source = _of(x, read.step_axis, read.row_axis)
                d_target.data = NULL
                if with_x:
                    d_target = _of(dx, read.step_axis, read.row_axis)
            else:
                pair = saved[layer - 1]
                below = pair[0]
                _expect(_is_ready(below, 3), "saved")
                _expect(_dim(below, 0) == T and _dim(below, 1) == B, "saved")
                _expect(_dim(below, 2) == D * P, "saved")
                source = _of(below, 0, 1)
                d_target = _contiguous(inner + (layer & 1) * T * B * D * P, B, D * P)
            _expect(len(kept) == D, "saved")
            for direction in range(D):
                k = layer * D + direction
                f = &run.passes[direction]
                f.cell, f.walk, f.zeros = m.cells[k], read.walk, zeros
                f.walk.reverse = m.reverse[direction]
                f.x, f.y = source, _columns(&y, direction * P)
                f.dy = d_source
                if d_source.data != NULL:
                    f.dy = _columns(&d_source, direction * P)
                for state in range(f.cell.states):
                    _state_of(&f.first[state], &first[state], k)
                    _state_of(&f.last[state], &d[state], k)
                _read_drawn(masks, k, &f.drawn)
                _read_saved(f.cell, T, B, kept[direction], f.saved)
                f.steps, f.later = sums.steps, sums.later
                _find_gradients(gradients[k], f.gradients)
            scratch = _scratch(_series_scratch(&run))
            try:
                _begin_sums(&run, sums, layer * D, scratch)
                run.sharing = _sharing(m, m.cells[layer * D], T, B)
                _run_layer(&run)
                threads = m.threads
                if T * B * D * m.cells[layer * D].weights <= m.parallel_work:
                    threads = 1
                _sum_layer(
                    &run, &d_target, layer == 0 and into is not None, sums, layer * D, threads
                )
            finally:
                PyMem_RawFree(scratch)
            d_source = d_target
    finally:
        PyMem_RawFree(inner)
    sums.later, sums.summed = sums.later + T, sums.summed + _live_rows(&read.walk)
    return dx, d_first, gradients if ends else None


cdef inline Py_ssize_t _row_sums_size(const Pass* f) noexcept:
    """Bytes of `row_sums`, and of one row more for `_add_rows`."""
    return (f.walk.B * _levels(f.steps) + 1) * f.cell.row_sums * sizeof(real)


cdef Py_ssize_t _series_scratch(const Layer* layer) noexcept:
    """Bytes for `series` of all directions."""
    cdef Py_ssize_t direction, size = 0
    cdef const Pass* f
    for direction in range(layer.directions):
        f = &layer.passes[direction]
        size += _padded(f.walk.T * f.walk.B * f.cell.back_series * sizeof(real))
    return size


cdef int _begin_sums(Layer* layer, const Sums* sums, Py_ssize_t cell, void* scratch) except -1:
    """Set `series` and `row_sums` of a layer whose first cell is the stack's `cell`."""
    cdef Py_ssize_t direction, size
    cdef char* free = _aligned(scratch)
    cdef void** memory = sums.memory + cell * (1 + MOST_SUMS)
    cdef Pass* f
    for direction in range(layer.directions):
        f = &layer.passes[direction]
        size = _row_sums_size(f)
        if memory[0] == NULL and size:
            memory[0] = _scratch(size)
            memset(_aligned(memory[0]), 0, size)
        f.row_sums = _contiguous(
            <real*> _aligned(memory[0]), f.walk.B, _levels(f.steps) * f.cell.row_sums
        )
        f.row_sums.step = 0
        size = f.walk.T * f.walk.B * f.cell.back_series * sizeof(real)
        f.series = _contiguous(<real*> _take(&free, size), f.walk.B, f.cell.back_series)
        memory += 1 + MOST_SUMS
    return 0


cdef int _sum_layer(
    Layer* layer,
    const Series* dx,  # OUT, or added to if `accumulate`; no data for none
    bint accumulate,
    const Sums* sums,
    Py_ssize_t cell,
    Py_ssize_t threads,
) except -1:
    """Compute the gradients of the layer's input and parameters, after its walks."""
    cdef Py_ssize_t direction, k, count
    cdef bint ends = sums.later + layer.passes[0].walk.T == sums.steps
    cdef Pass* f
    cdef Product into_x
    cdef Outer[MOST_SUMS] outer
    cdef void** memory = sums.memory + cell * (1 + MOST_SUMS)
    for direction in range(layer.directions):
        f = &layer.passes[direction]
        if dx.data != NULL:
            into_x.walk, into_x.walk.reverse = f.walk, False
            into_x.K, into_x.N = f.cell.d_input_size, f.cell.inputs
            into_x.a, into_x.out = f.saved[f.cell.d_input], dx[0]
            into_x.panels, into_x.bias = f.cell.transposed, NULL
            into_x.accumulate = accumulate or direction > 0
            _lead(_multiply_all, &into_x, _product_scratch(), threads)
        count = f.cell.sums(f, outer)
        for k in range(count):
            outer[k].steps, outer[k].summed, outer[k].ends = f.steps, sums.summed, ends
            _lead_sum(&outer[k], threads, memory + 1 + k)
        if ends:
            f.cell.after_sums(f)
            for k in range(1 + MOST_SUMS):
                PyMem_RawFree(memory[k])
                memory[k] = NULL
        memory += 1 + MOST_SUMS
    return 0
