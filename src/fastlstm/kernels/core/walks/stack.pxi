# Stacks: layers and directions of packed cells, ready for calls; and the arguments of a call.

cdef struct Stack:
    Py_ssize_t layers
    Py_ssize_t directions
    bint[2] reverse
    bint batch_first
    bint one_step  # True: x is one step, without an axis of steps
    Py_ssize_t threads
    # Thresholds for the use of several threads in a layer: see fastlstm/engine/prepared.py.
    Py_ssize_t parallel_work
    Py_ssize_t step_work
    Py_ssize_t few_rows
    Py_ssize_t row_weights
    Py_ssize_t lanes
    const Cell** cells  # [layers][directions]


cdef const Cell* _cell_of(object capsule) except NULL:
    if not PyCapsule_IsValid(capsule, CELL):
        raise TypeError("cells: expected what this build has packed")
    return <const Cell*> PyCapsule_GetPointer(capsule, CELL)


cdef void _drop_stack(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, STACK):
        cells = <object> PyCapsule_GetContext(capsule)
        PyMem_RawFree(PyCapsule_GetPointer(capsule, STACK))
        Py_DECREF(cells)


def stack(cells, reverse, bint batch_first, bint one_step, Py_ssize_t threads, thresholds, /):
    """Make packed cells ready for calls: see reference/core/stack.py.

    Returns NotImplemented if this build has not packed every cell; cells in Python are not packed.
    """
    cdef tuple kept = tuple(cells)
    cdef Py_ssize_t k, layers, directions = len(reverse), state
    cdef const Cell* cell
    for capsule in kept:
        if not PyCapsule_IsValid(capsule, CELL):
            return NotImplemented
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    if one_step and len(kept) != 1:
        raise ValueError(f"one_step: expected one cell, got {len(kept)}")
    if not 1 <= directions <= 2 or not kept or len(kept) % directions:
        raise ValueError(f"cells: got {len(kept)} for {directions} directions")
    layers = len(kept) // directions
    cdef Stack* made = <Stack*> PyMem_RawMalloc(sizeof(Stack) + len(kept) * sizeof(Cell*))
    if made == NULL:
        raise MemoryError("expected memory for a stack, got none")
    made.layers, made.directions, made.threads = layers, directions, threads
    made.batch_first, made.one_step = batch_first, one_step
    made.cells = <const Cell**> (made + 1)
    try:
        made.parallel_work, made.step_work, made.few_rows = thresholds[:3]
        made.row_weights, made.lanes = thresholds[3:]
        for k in range(directions):
            made.reverse[k] = reverse[k]
        for k in range(layers * directions):
            made.cells[k] = cell = _cell_of(kept[k])
            _expect(cell.states == made.cells[0].states, "cells")
            for state in range(cell.states):
                _expect(cell.sizes[state] == made.cells[0].sizes[state], "cells")
            if k >= directions:
                _expect(cell.inputs == directions * made.cells[0].P, "cells")
            else:
                _expect(cell.inputs == made.cells[0].inputs, "cells")
    except BaseException:
        PyMem_RawFree(made)
        raise
    capsule = PyCapsule_New(made, STACK, _drop_stack)
    Py_INCREF(kept)
    PyCapsule_SetContext(capsule, <void*> kept)
    return capsule


cdef inline const Stack* _stack_of(object capsule) except NULL:
    """The stack in a capsule from `stack`; ValueError for any other object."""
    return <const Stack*> PyCapsule_GetPointer(capsule, STACK)


cdef struct Arguments:
    # The axes of a call's x, and the walk that its lengths and resets describe.
    Py_ssize_t T
    Py_ssize_t B
    int step_axis  # axis of steps in x and y; -1 without one
    int row_axis  # axis of rows in x and y; -1 without one
    bint batched  # whether there is an axis of rows
    int axes  # of x, y and each part of the state
    Walk walk  # the walk forward
    void* order  # memory for `rows` and `live` of the walk, or NULL
    bint shared  # True: several threads write to the results


cdef bint _read_axes(const Stack* m, object x, Arguments* read) noexcept:
    """Set `read` by the axes of x; False where x has to be copied or refused first."""
    if not cnp.PyArray_CheckExact(x):
        return False
    read.axes = _ndim(x)
    read.batched = read.axes == 3 - m.one_step
    if not (read.batched or read.axes == 2 - m.one_step) or not _is_ready(x, read.axes):
        return False
    if m.one_step:
        read.step_axis, read.row_axis = -1, 0 if read.batched else -1
    elif read.batched:
        read.step_axis, read.row_axis = m.batch_first, not m.batch_first
    else:
        read.step_axis, read.row_axis = 0, -1
    read.T = _dim(x, read.step_axis) if read.step_axis >= 0 else 1
    read.B = _dim(x, read.row_axis) if read.row_axis >= 0 else 1
    read.order = NULL
    read.walk = _whole_walk(read.T, read.B, False)
    cdef const Cell* last = m.cells[m.layers * m.directions - 1]
    read.shared = (
        _sharing(m, m.cells[0], read.T, read.B).threads > 1
        or _sharing(m, last, read.T, read.B).threads > 1
    )
    return _dim(x, read.axes - 1) == m.cells[0].inputs


cdef bint _is_like_y(const Arguments* read, object array, Py_ssize_t N) noexcept:
    """Whether `array` is ready as [T, B, N] in the caller's form."""
    return (
        _is_ready(array, read.axes)
        and _dim(array, read.axes - 1) == N
        and (read.step_axis < 0 or _dim(array, read.step_axis) == read.T)
        and (read.row_axis < 0 or _dim(array, read.row_axis) == read.B)
    )


cdef bint _is_state(const Stack* m, const Arguments* read, object array, Py_ssize_t size) noexcept:
    """Whether `array` is ready as a part of the state, [L · D, B, size] without axes x lacks."""
    if not _is_ready(array, read.axes) or _dim(array, read.axes - 1) != size:
        return False
    if read.batched and _dim(array, read.axes - 2) != read.B:
        return False
    return m.one_step or _dim(array, 0) == m.layers * m.directions


cdef bint _read_state(
    const Stack* m, const Arguments* read, object state, Series* series, const real* zeros
):
    """Set `series` to the parts of the state, zeros for None; False where a part is not ready."""
    cdef const Cell* cell = m.cells[0]
    cdef Py_ssize_t k
    for k in range(cell.states):
        series[k].data, series[k].step, series[k].row = <char*> zeros, 0, 0
    if state is None:
        return True
    if cell.states == 1:
        state = (state,)
    elif type(state) is not tuple or len(<tuple> state) != cell.states:
        return False
    for k in range(cell.states):
        array = (<tuple> state)[k]
        if not _is_state(m, read, array, cell.sizes[k]):
            return False
        # Here the step of the series goes from a cell to the next.
        series[k] = _of(array, -1 if m.one_step else 0, (not m.one_step) if read.batched else -1)
    return True


cdef inline void _state_of(Series* own, const Series* series, Py_ssize_t cell) noexcept nogil:
    """Set `own` to the state [B, size] of one cell, from a `series` of all cells' states."""
    own[0] = series[0]
    own.data += cell * series.step
    own.step = 0


cdef object _new_state(const Stack* m, const Arguments* read, Series* series, bint zeros):
    """New arrays of a state, in the caller's form; `series` is set to them."""
    if m.cells[0].states == 1:
        return _new_part(m, read, 0, series, zeros)
    return _new_part(m, read, 0, series, zeros), _new_part(m, read, 1, series, zeros)


cdef object _new_part(
    const Stack* m, const Arguments* read, Py_ssize_t k, Series* series, bint zeros
):
    cdef cnp.npy_intp[3] shape = [m.layers * m.directions, read.B, m.cells[0].sizes[k]]
    if not read.batched:
        shape[1] = shape[0]
    if read.shared:
        array = _new_on_line(read.axes, &shape[3 - read.axes], zeros)
    elif zeros:
        array = cnp.PyArray_ZEROS(read.axes, &shape[3 - read.axes], REAL, 0)
    else:
        array = cnp.PyArray_EMPTY(read.axes, &shape[3 - read.axes], REAL, 0)
    series[k] = _of(array, -1 if m.one_step else 0, (not m.one_step) if read.batched else -1)
    return array


cdef bint _read_walk_of(
    Arguments* read, object lengths, object resets, Py_ssize_t longest
) except -1:
    """Set the walk by lengths, 0 to `longest`, and resets; False where one is not ready."""
    cdef Py_ssize_t b, length, stride = 0
    cdef const char* data = NULL
    if lengths is not None:
        if not (
            read.batched
            and cnp.PyArray_CheckExact(lengths)
            and _dtype(lengths) == cnp.NPY_INTP
            and _ndim(lengths) == 1
            and _dim(lengths, 0) == read.B
            and _is_behaved(lengths)
            and read.step_axis >= 0
        ):
            return False
        data, stride = _bytes(lengths), _byte_stride(lengths, 0)
        for b in range(read.B):
            length = (<const Py_ssize_t*> (data + b * stride))[0]
            if not 0 <= length <= longest:
                return False
    if resets is not None:
        if not (
            cnp.PyArray_CheckExact(resets)
            and _dtype(resets) == cnp.NPY_BOOL
            and read.step_axis >= 0
            and _ndim(resets) == 1 + read.batched
            and _dim(resets, read.step_axis) == read.T
            and (not read.batched or _dim(resets, read.row_axis) == read.B)
        ):
            return False
        read.walk.resets = _bytes(resets)
        read.walk.reset_step = _axis_stride(resets, read.step_axis)
        read.walk.reset_row = _axis_stride(resets, read.row_axis)
    if lengths is not None and read.B:
        read.order = _scratch(_order_size(longest, read.B))
        _order_rows(&read.walk, data, stride, longest, read.order)
    return True


cdef inline int _read_drawn(object masks, Py_ssize_t cell, Drawn* drawn) except -1:
    """Set `drawn` to the masks of one cell, whose shapes `_are_drawn` has checked."""
    memset(drawn, 0, sizeof(drawn[0]))
    if masks is not None and masks[cell] is not None:
        _read_masks(masks, cell, drawn)
    return 0


cdef int _read_masks(object masks, Py_ssize_t cell, Drawn* drawn) except -1:
    factors, kept_h, kept_c = tuple(masks[cell])
    if factors is not None:
        drawn.factors = _of(factors, -1, 0)
    if kept_h is not None:
        drawn.kept_h = _flags_of(kept_h)
    if kept_c is not None:
        drawn.kept_c = _flags_of(kept_c)
    return 0


cdef inline Flags _flags_of(object array) noexcept:
    cdef Flags flags
    flags.data = <const unsigned char*> _bytes(array)
    flags.step, flags.row = _byte_stride(array, 0), _byte_stride(array, 1)
    return flags


cdef bint _are_drawn(const Stack* m, object masks, Py_ssize_t T, Py_ssize_t B) except -1:
    """Whether `masks` has arrays of the right shape and dtype for every cell."""
    cdef Py_ssize_t k
    cdef const Cell* cell
    if len(masks) != m.layers * m.directions:
        return False
    for k in range(m.layers * m.directions):
        cell = m.cells[k]
        if masks[k] is None:
            continue
        factors, kept_h, kept_c = tuple(masks[k])
        if factors is not None and not (
            _is_ready(factors, 2)
            and _dim(factors, 0) == B
            and _dim(factors, 1) == cell.P
        ):
            return False
        if kept_h is not None and not _are_flags(kept_h, T, B, cell.P):
            return False
        if kept_c is not None and not _are_flags(kept_c, T, B, cell.H):
            return False
    return True


cdef bint _are_flags(object array, Py_ssize_t T, Py_ssize_t B, Py_ssize_t N) noexcept:
    """Whether `array` is bool [T, B, N] without gaps."""
    return (
        cnp.PyArray_CheckExact(array)
        and _dtype(array) == cnp.NPY_BOOL
        and _ndim(array) == 3
        and _is_gapless(array)
        and _dim(array, 0) == T
        and _dim(array, 1) == B
        and _dim(array, 2) == N
    )
