# One step of some rows, whose state is updated in place.

cdef bint _share_memory(object a, object b) except -1:
    return _may_overlap(a, b) and np.shares_memory(a, b)


cdef bint _has_own_elements(object array) except -1:
    return not _overlaps_itself(array) or has_own_elements(array)


cdef bint _read_places(
    const Stack* m, Arguments* read, object state, Series* places
) except -1:
    """Set `places` to the arrays of a state, and B; False where one cannot be updated."""
    cdef Py_ssize_t k, other
    cdef tuple parts
    if m.cells[0].states == 1:
        parts = (state,)
    elif type(state) is tuple and len(<tuple> state) == m.cells[0].states:
        parts = state
    else:
        return False
    read.axes = 3 - m.one_step
    if not _is_ready(parts[0], read.axes):
        return False
    read.T, read.B, read.batched = 1, _dim(parts[0], read.axes - 2), True
    if not _read_state(m, read, state, places, NULL):
        return False
    for k in range(len(parts)):
        if not (_is_writeable(parts[k]) and _has_own_elements(parts[k])):
            return False
        for other in range(k):
            if _share_memory(parts[k], parts[other]):
                return False
    return True


cdef bint _read_rows(object rows, Py_ssize_t n, Py_ssize_t B, Py_ssize_t* numbers) except -1:
    """Set `numbers` to the rows; False unless they are n different ones from 0 to B - 1."""
    cdef Py_ssize_t k, row, before = -1
    cdef bint rise = True
    if rows is None:
        for k in range(n):
            numbers[k] = k
        return n == B
    cdef bint is_list = type(rows) is list
    if is_list:
        if len(<list> rows) != n:
            return False
    elif not (
        cnp.PyArray_CheckExact(rows)
        and _dtype(rows) == cnp.NPY_INTP
        and _ndim(rows) == 1
        and _dim(rows, 0) == n
        and _is_behaved(rows)
    ):
        return False
    for k in range(n):
        if not is_list:
            row = (<const Py_ssize_t*> cnp.PyArray_GETPTR1(<cnp.ndarray> rows, k))[0]
        elif type((<list> rows)[k]) is int and 0 <= (<list> rows)[k] < B:
            row = (<list> rows)[k]
        else:
            return False
        if not 0 <= row < B:
            return False
        rise = rise and row > before
        numbers[k] = before = row
    return rise or _are_different(numbers, n, B)


cdef bint _are_different(const Py_ssize_t* numbers, Py_ssize_t n, Py_ssize_t B) except -1:
    """Whether none of n numbers from 0 to B - 1 is there twice."""
    cdef Py_ssize_t k
    cdef char* seen = <char*> PyMem_RawCalloc(B, 1)
    cdef bint different = True
    if seen == NULL:
        raise MemoryError(f"expected {B} bytes of scratch memory, got none")
    for k in range(n):
        different = different and not seen[numbers[k]]
        seen[numbers[k]] = True
    PyMem_RawFree(seen)
    return different


cdef bint _is_step_out(
    const Stack* m, object out, Py_ssize_t n, object x, object state
) except -1:
    """Whether `out` is ready for results [n, P] and shares no memory with other arguments."""
    if not (
        _is_ready(out, 2)
        and _is_writeable(out)
        and _dim(out, 0) == n
        and _dim(out, 1) == m.cells[0].P
        and _has_own_elements(out)
        and not _share_memory(out, x)
    ):
        return False
    if type(state) is not tuple:
        return not _share_memory(out, state)
    for array in <tuple> state:
        if _share_memory(out, array):
            return False
    return True


def step(stack, x, state, rows=None, out=None):
    """Compute one step of some rows, and update their state: see reference/core/stack.py.

    Returns NotImplemented if an argument is not ready.
    """
    cdef const Stack* m = _stack_of(stack)
    cdef const Cell* cell = m.cells[0]
    cdef Arguments read
    cdef Series[MOST_STATES] places
    cdef Py_ssize_t n, k, size = 0
    cdef void* memory = NULL
    cdef char* free
    cdef Py_ssize_t* numbers
    x = _as_real(x)
    if not _is_ready(x, 2) or _dim(x, 1) != cell.inputs:
        return NotImplemented
    if m.directions > 1 or m.reverse[0] or not _read_places(m, &read, state, places):
        return NotImplemented
    n = _dim(x, 0)
    if out is not None and not _is_step_out(m, out, n, x, state):
        return NotImplemented
    for k in range(cell.states):
        size += m.layers * _padded(n * cell.sizes[k] * sizeof(real))
    size += min(m.layers - 1, <Py_ssize_t> 2) * _padded(n * cell.P * sizeof(real))
    try:
        memory = _scratch(size + _padded(n * sizeof(Py_ssize_t)))
        free = _aligned(memory)
        numbers = <Py_ssize_t*> _take(&free, n * sizeof(Py_ssize_t))
        if not _read_rows(rows, n, read.B, numbers):
            return NotImplemented
        y = _new(2, 0, n, cell.P) if out is None else out
        _step_rows(m, n, _of(x, -1, 0), _of(y, -1, 0), places, numbers, free)
        return y
    except MemoryError as error:
        raise no_memory(x, cell.P) from error
    finally:
        PyMem_RawFree(memory)


cdef int _step_rows(
    const Stack* m,
    Py_ssize_t n,
    Series source,  # [n, I]
    Series y,  # OUT [n, P]
    const Series* places,  # the state; the step of these series goes from a layer to the next
    const Py_ssize_t* numbers,  # [n] rows of the state
    char* free,  # copies of the rows' states, and outputs of inner layers
) except -1:
    """Every layer computes on a copy of the rows' states, so an error leaves them as they are."""
    cdef Py_ssize_t layer, state
    cdef Series inner[2]
    cdef Series[MOST_STATES] copies  # of all layers; steps as in `places`
    cdef const real* zeros = _zeros_for(m)
    cdef Layer run
    cdef Pass* f = &run.passes[0]
    for state in range(m.cells[0].states):
        copies[state] = _contiguous(<real*> free, n, m.cells[0].sizes[state])
        copies[state].step = _padded(copies[state].step)
        free += m.layers * copies[state].step
        _copy_rows(m, state, n, &places[state], numbers, &copies[state], NULL)
    for layer in range(min(m.layers - 1, <Py_ssize_t> 2)):
        inner[layer] = _contiguous(<real*> free, n, m.cells[0].P)
        free += _padded(inner[layer].step)
    run.directions, run.backward = 1, False
    f.walk, f.zeros, f.training = _whole_walk(1, n, False), zeros, False
    memset(&f.drawn, 0, sizeof(f.drawn))
    try:
        for layer in range(m.layers):
            f.cell = m.cells[layer]
            f.x, f.y = source, y if layer == m.layers - 1 else inner[layer & 1]
            for state in range(f.cell.states):
                _state_of(&f.last[state], &copies[state], layer)
                f.first[state] = f.last[state]
            run.sharing = _sharing(m, f.cell, 1, n)
            _run_layer(&run)
            source = f.y
    finally:
        _free_zeros(zeros)
    for state in range(m.cells[0].states):
        _copy_rows(m, state, n, &copies[state], NULL, &places[state], numbers)
    return 0


cdef void _copy_rows(
    const Stack* m,
    Py_ssize_t state,
    Py_ssize_t n,
    const Series* source,
    const Py_ssize_t* source_rows,  # [n]; NULL for the rows from 0 to n - 1
    const Series* target,
    const Py_ssize_t* target_rows,
) noexcept nogil:
    """Copy one part of the state of n rows, in every layer."""
    cdef Py_ssize_t layer, k
    for layer in range(m.layers):
        for k in range(n):
            memcpy(
                _at(target, layer, k if target_rows == NULL else target_rows[k]),
                _at(source, layer, k if source_rows == NULL else source_rows[k]),
                m.cells[0].sizes[state] * sizeof(real),
            )
