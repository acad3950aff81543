# Outer products of pairs of rows, summed over the pairs.

cdef inline inlined_void _outer_tile(
    const int TILES,
    const int GROUPS,
    real* sums,  # [TILES * TILE] of [GROUPS][V]: added to; OUT if `fresh`
    Py_ssize_t stride,  # reals from a row of `sums` to the next
    bint fresh,
    const real* panel,  # [depth][4][V]
    const real* left,  # [TILES][depth][TILE]
    Py_ssize_t depth,
) noexcept nogil:
    """As `_tile`, with the numbers of a tile's rows for one k next to each other in `left`."""
    cdef vec acc[2 * TILE][4]
    cdef vec w[4]
    cdef vec* at
    cdef real factor
    cdef Py_ssize_t k
    cdef int r, g
    for r in range(TILES * TILE):
        for g in range(GROUPS):
            PREFETCH(sums + r * stride + g * V)
            acc[r][g] = vec_of(0)
    for k in range(depth):
        for g in range(GROUPS):
            w[g] = (<const vec*> (panel + k * PANEL))[g]
            if g % VECS_OF_LINE == 0:
                PREFETCH(panel + (k + AHEAD) * PANEL + g * V)
        for r in range(TILES * TILE):
            factor = left[(r // TILE * depth + k) * TILE + r % TILE]
            for g in range(GROUPS):
                acc[r][g] += w[g] * factor
    for r in range(TILES * TILE):
        at = <vec*> (sums + r * stride)
        for g in range(GROUPS):
            at[g] = acc[r][g] if fresh else at[g] + acc[r][g]


cdef void _outer_compute(
    Py_ssize_t tiles,  # 1, or 2 with up to 2 groups: fewer sums would leave multipliers idle
    Py_ssize_t groups,
    real* sums,
    Py_ssize_t stride,
    bint fresh,
    const real* panel,
    const real* left,
    Py_ssize_t depth,
) noexcept nogil:
    if groups == 1 and tiles == 1:
        _outer_tile(1, 1, sums, stride, fresh, panel, left, depth)
    elif groups == 1:
        _outer_tile(2, 1, sums, stride, fresh, panel, left, depth)
    elif groups == 2 and tiles == 1:
        _outer_tile(1, 2, sums, stride, fresh, panel, left, depth)
    elif groups == 2:
        _outer_tile(2, 2, sums, stride, fresh, panel, left, depth)
    elif groups == 3:
        _outer_tile(1, 3, sums, stride, fresh, panel, left, depth)
    else:
        _outer_tile(1, 4, sums, stride, fresh, panel, left, depth)


cdef void _pack_left(
    const real** dz,  # [depth] of [M]
    Py_ssize_t start,
    Py_ssize_t columns,
    Py_ssize_t depth,
    real* left,  # OUT [⌈columns / TILE⌉][depth][TILE], with zeros after the last column
) noexcept nogil:
    cdef Py_ssize_t k, tile, r, tiles = columns // TILE, rest = columns % TILE
    cdef const real* row
    cdef real* at
    for k in range(depth):
        row = dz[k] + start
        for tile in range(tiles):
            memcpy(left + (tile * depth + k) * TILE, row + tile * TILE, TILE * sizeof(real))
        if rest:
            at = left + (tiles * depth + k) * TILE
            for r in range(TILE):
                at[r] = row[tiles * TILE + r] if r < rest else 0


cdef void _pack_right(
    const real** source,  # [depth] of [N]
    const real** factors,  # [depth] of [N], or NULL
    Py_ssize_t N,
    Py_ssize_t depth,
    real* panels,  # OUT [⌈N / 4V⌉][depth][4][V]
) noexcept nogil:
    cdef Py_ssize_t b, k, columns
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        for k in range(depth):
            memset(panels + columns, 0, (PANEL - columns) * sizeof(real))
            if factors == NULL:
                memcpy(panels, source[k] + b * PANEL, columns * sizeof(real))
            else:
                _drop_row(panels, source[k] + b * PANEL, factors[k] + b * PANEL, columns)
            panels += PANEL


cdef void _add_outer(
    const real* left,  # from _pack_left
    Py_ssize_t rows,
    const real* panels,  # from _pack_right
    Py_ssize_t N,
    Py_ssize_t depth,
    real* out,  # [rows, N]: added to; OUT if `fresh`
    bint fresh,  # True: `out` holds no sums yet
    real* sums,  # scratch [MAX_TILE]
) noexcept nogil:
    cdef Py_ssize_t b, tiles, m, r, columns, groups
    cdef const real* panel
    cdef real* target
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        groups, panel = _blocks(columns, V), panels + b * depth * PANEL
        m = 0
        while m < rows:
            tiles = 2 if groups <= 2 and rows - m > TILE else 1
            target = out + m * N + b * PANEL
            if columns == groups * V and rows - m >= tiles * TILE:
                _outer_compute(tiles, groups, target, N, fresh, panel, left + m * depth, depth)
            else:
                _outer_compute(
                    tiles, groups, sums, groups * V, True, panel, left + m * depth, depth
                )
                for r in range(min(rows - m, tiles * TILE)):
                    _move(target + r * N, sums + r * groups * V, columns, fresh)
            m += tiles * TILE


cdef void _set_outer(
    const real* dz,  # [rows]
    Py_ssize_t rows,
    const real* source,  # [N]
    Py_ssize_t N,
    real* out,  # OUT [rows, N]
) noexcept nogil:
    """The outer product of one pair of vectors, where nothing is summed.

    The last vector of a row ends where the row does, with numbers that the one before has, too: a
    partial store takes ten times as long. Adding 0 makes a product of -0 the 0 that a sum has.
    """
    cdef Py_ssize_t m, n
    cdef vec last = _load(source + max(N - V, <Py_ssize_t> 0), N)
    for m in range(rows):
        if N < V:
            for n in range(N):
                out[n] = 0 + source[n] * dz[m]
        else:
            for n in range((N - 1) // V):
                (<vec*> out)[n] = vec_of(0) + (<const vec*> source)[n] * dz[m]
            (<vec*> (out + N - V))[0] = vec_of(0) + last * dz[m]
        out += N
