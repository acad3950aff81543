# The input's part of the gates: W x + bias, for the rows of several steps at once.

cdef enum:
    # Up to HOIST_ROWS rows a step, W is read once for HOIST pairs of step and row together; more
    # rows take W and the recurrent weights in one go.
    HOIST_ROWS = 3
    HOIST = 24


cdef inline Py_ssize_t _gather(
    const Walk* walk,
    Py_ssize_t i,
    const real[:, :, :] series,  # [T, B, N]
    Py_ssize_t most_rows,  # of a step
    Py_ssize_t most,
    const real** pointers,  # OUT [count] of [N]
    Py_ssize_t* count,
) noexcept nogil:
    """The rows of as many steps, from the i-th on, as fit whole; the step after them."""
    cdef Py_ssize_t s
    count[0] = 0
    while i < walk.T and _live_at(walk, i) <= min(most_rows, most - count[0]):
        for s in range(_live_at(walk, i)):
            pointers[count[0]] = &series[_step(walk, i), _row(walk, s), 0]
            count[0] += 1
        i += 1
    return i


cdef struct Hoist:
    Py_ssize_t pairs  # of a step and a row: so many at most are prepared at once
    const real** x  # scratch [pairs] of [I]
    real* z  # scratch [pairs][blocks][4][V]
    Py_ssize_t prepared  # steps begun
    Py_ssize_t used  # pairs


cdef inline real* _hoisted(
    Hoist* hoist,
    const Walk* walk,
    Py_ssize_t i,
    const real[:, :, :] x,
    const real* packed,
    Py_ssize_t blocks,
    Py_ssize_t panel_block,
    bint split,
) noexcept nogil:
    """[n][blocks][4][V] for the n rows of the walk's i-th step; NULL where rows are many."""
    cdef Py_ssize_t n = _live_at(walk, i), count
    cdef real* z
    if n > HOIST_ROWS:
        return NULL
    if i >= hoist.prepared:
        hoist.used = 0
        hoist.prepared = _gather(walk, i, x, HOIST_ROWS, hoist.pairs, hoist.x, &count)
        _input_part(hoist.x, count, x.shape[2], packed, blocks, panel_block, split, hoist.z)
    z = hoist.z + hoist.used * blocks * PANEL
    hoist.used += n
    return z


cdef void _input_part(
    const real** x,  # [n] of [I]
    Py_ssize_t n,
    Py_ssize_t inputs,
    const real* packed,
    Py_ssize_t blocks,
    Py_ssize_t panel_block,
    bint split,  # which tile: see `_compute_split`
    real* z,  # OUT [n][blocks][4][V]
) noexcept nogil:
    cdef Py_ssize_t b = 0, s, rows, width, most = TILE // _even(max(n, 1), TILE)
    cdef Tile tile
    tile.start_row, tile.start_block, tile.panel_block = 0, panel_block, panel_block
    tile.first_size, tile.second_size, tile.second = inputs, 0, NULL
    tile.sums_row = blocks * PANEL
    while b < blocks:
        width = _even(blocks - b, most)
        tile.start = packed + b * panel_block
        tile.panel = tile.start + PANEL
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.first = x + s
            tile.sums = z + (s * blocks + b) * PANEL
            if split:
                _compute_split(&tile, rows, width)
            else:
                _compute(&tile, rows, width, 4)
            s += rows
        b += width
