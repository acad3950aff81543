# The one inner loop. Inlined with constant ROWS and BLOCKS, so that each shape of tile becomes an
# unrolled loop whose sums stay in registers.

cdef inline void _tile(
    const int ROWS,
    const int BLOCKS,
    real* sums,  # [ROWS][BLOCKS][4][V], rows `sums_stride` apart: added to
    Py_ssize_t sums_stride,
    const real* panel,  # [BLOCKS][K][4][V], blocks `panel_stride` apart
    Py_ssize_t panel_stride,
    const real** rows,  # [ROWS] of [K]
    Py_ssize_t K,
) noexcept nogil:
    cdef vec acc[TILE][4]
    cdef Py_ssize_t k
    cdef int r, b, g
    for r in range(ROWS):
        for b in range(BLOCKS):
            for g in range(4):
                acc[r * BLOCKS + b][g] = (<vec*> (sums + r * sums_stride + b * PANEL))[g]
    for k in range(K):
        for b in range(BLOCKS):
            for r in range(ROWS):
                for g in range(4):
                    acc[r * BLOCKS + b][g] += (
                        (<const vec*> (panel + b * panel_stride + k * PANEL))[g] * rows[r][k]
                    )
    for r in range(ROWS):
        for b in range(BLOCKS):
            for g in range(4):
                (<vec*> (sums + r * sums_stride + b * PANEL))[g] = acc[r * BLOCKS + b][g]


cdef void _tile_of(
    Py_ssize_t rows,
    Py_ssize_t blocks,
    real* sums,
    Py_ssize_t sums_stride,
    const real* panel,
    Py_ssize_t panel_stride,
    const real** a,
    Py_ssize_t K,
) noexcept nogil:
    """`_tile` of the given shape, rows * blocks <= TILE."""
    if blocks == 1:
        if rows == 1:
            _tile(1, 1, sums, sums_stride, panel, panel_stride, a, K)
        elif rows == 2:
            _tile(2, 1, sums, sums_stride, panel, panel_stride, a, K)
        elif rows == 3:
            _tile(3, 1, sums, sums_stride, panel, panel_stride, a, K)
        elif rows == 4 and TILE >= 4:
            _tile(4, 1, sums, sums_stride, panel, panel_stride, a, K)
        elif rows == 5 and TILE >= 5:
            _tile(5, 1, sums, sums_stride, panel, panel_stride, a, K)
        elif TILE >= 6:
            _tile(6, 1, sums, sums_stride, panel, panel_stride, a, K)
    elif blocks == 2:
        if rows == 1:
            _tile(1, 2, sums, sums_stride, panel, panel_stride, a, K)
        elif rows == 2 and TILE >= 4:
            _tile(2, 2, sums, sums_stride, panel, panel_stride, a, K)
        elif TILE >= 6:
            _tile(3, 2, sums, sums_stride, panel, panel_stride, a, K)
    elif blocks == 3:
        if rows == 1:
            _tile(1, 3, sums, sums_stride, panel, panel_stride, a, K)
        elif TILE >= 6:
            _tile(2, 3, sums, sums_stride, panel, panel_stride, a, K)
    elif blocks == 4 and TILE >= 4:
        _tile(1, 4, sums, sums_stride, panel, panel_stride, a, K)
    elif blocks == 5 and TILE >= 5:
        _tile(1, 5, sums, sums_stride, panel, panel_stride, a, K)
    elif TILE >= 6:
        _tile(1, 6, sums, sums_stride, panel, panel_stride, a, K)
