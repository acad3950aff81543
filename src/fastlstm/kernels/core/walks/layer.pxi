# One layer: how its directions and rows are divided among threads.

cdef struct Sharing:
    # How the work of one layer is divided among threads.
    Py_ssize_t threads  # 1 or more
    Py_ssize_t parts  # 1 or more: the number of parts of each direction's rows
    bint splits_units  # True: all threads walk together, each with its part of the units


cdef Sharing _sharing(const Stack* m, const Cell* cell, Py_ssize_t T, Py_ssize_t B) noexcept nogil:
    cdef Sharing sharing
    sharing.threads, sharing.parts, sharing.splits_units = 1, 1, False
    if m.threads == 1 or T * B * m.directions * cell.weights <= m.parallel_work:
        return sharing
    if (
        m.directions == 1
        and cell.H >= m.threads * m.lanes
        and (B < m.threads * m.few_rows or m.threads * cell.weights > B * m.row_weights)
    ):
        if B * cell.weights >= m.step_work:
            sharing.threads, sharing.splits_units = m.threads, True
        return sharing
    sharing.threads = m.threads
    sharing.parts = min(_blocks(m.threads, m.directions), B)
    return sharing


cdef struct Layer:
    Pass[2] passes  # by direction
    Py_ssize_t directions
    Sharing sharing
    bint backward


cdef inline Py_ssize_t _walk_scratch(const Layer* layer, Py_ssize_t rows) noexcept nogil:
    """Bytes of scratch that each thread needs for a walk of up to `rows` rows."""
    cdef Py_ssize_t direction, size = 0
    for direction in range(layer.directions):
        if layer.backward:
            size = max(size, _backward_scratch(&layer.passes[direction], rows))
        else:
            size = max(size, _forward_scratch(&layer.passes[direction], rows))
    return size


cdef inline Py_ssize_t _shared_size(const Layer* layer, Py_ssize_t rows) noexcept nogil:
    """Bytes of scratch that the whole team needs for a walk of up to `rows` rows."""
    cdef Py_ssize_t direction, reals = 0
    cdef const Cell* cell
    for direction in range(layer.directions):
        cell = layer.passes[direction].cell
        reals = max(reals, cell.back_shared if layer.backward else cell.shared)
    return _padded(rows * reals * sizeof(real))


cdef void _walk_parts(const void* arguments, Team* team, void* memory) noexcept nogil:
    """Walk each direction of each part of the rows, as a piece for one member."""
    cdef const Layer* layer = <const Layer*> arguments
    cdef Py_ssize_t parts = layer.sharing.parts, pieces = layer.directions * parts, piece = -1
    cdef Pass f
    cdef Team alone = _alone(team.watch)
    cdef char* free
    cdef void* order
    while _next_piece(team, &piece, pieces):
        f = layer.passes[piece // parts]
        free = _aligned(memory)
        order = _take(&free, _share_size(&f.walk, parts))
        f.walk = _share_of(&layer.passes[piece // parts].walk, piece % parts, parts, order)
        f.shared = <real*> _take(&free, _shared_size(layer, f.walk.n))
        if layer.backward:
            _walk_backward(&f, &alone, free)
        else:
            _walk_forward(&f, &alone, free)


cdef int _run_layer(Layer* layer) except -1:
    cdef Pass* f = &layer.passes[0]
    cdef Py_ssize_t parts = layer.sharing.parts, rows = _blocks(f.walk.n, parts)
    cdef Py_ssize_t scratch = _walk_scratch(layer, rows), shared = _shared_size(layer, rows)
    cdef void* memory = NULL
    if layer.directions * parts > 1:
        scratch += _padded(_share_size(&f.walk, parts)) + shared
        _lead(_walk_parts, layer, scratch, layer.sharing.threads)
        return 0
    if shared:
        memory = _scratch(shared)
    f.shared = <real*> _aligned(memory)
    try:
        _lead(
            _walk_backward if layer.backward else _walk_forward, f, scratch, layer.sharing.threads
        )
    finally:
        PyMem_RawFree(memory)
    return 0
