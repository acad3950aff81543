# Gradients of weights: sums of outer products over all rows of all steps.

cdef enum:
    DEPTH = 256  # rows of the batch that are summed between two trips to memory
    SLAB = 96  # rows of the weight, a multiple of every TILE, that are packed together


cdef inline void _outer_tile(
    const int ROWS,
    const int GROUPS,
    real* sums,  # [ROWS][4][V]: added to
    const real* panel,  # [depth][4][V]
    const real* left,  # [depth][TILE]
    Py_ssize_t depth,
) noexcept nogil:
    """As `_tile`, for rows that stand side by side."""
    cdef vec acc[TILE][4]
    cdef vec w[4]
    cdef real factor
    cdef Py_ssize_t k
    cdef int r, g
    for r in range(ROWS):
        for g in range(GROUPS):
            acc[r][g] = (<vec*> (sums + r * PANEL))[g]
    for k in range(depth):
        for g in range(GROUPS):
            w[g] = (<const vec*> (panel + k * PANEL))[g]
        for r in range(ROWS):
            factor = left[k * TILE + r]
            for g in range(GROUPS):
                acc[r][g] += w[g] * factor
    for r in range(ROWS):
        for g in range(GROUPS):
            (<vec*> (sums + r * PANEL))[g] = acc[r][g]


cdef void _outer_compute(
    Py_ssize_t groups, real* sums, const real* panel, const real* left, Py_ssize_t depth
) noexcept nogil:
    if groups == 1:
        _outer_tile(TILE, 1, sums, panel, left, depth)
    elif groups == 2:
        _outer_tile(TILE, 2, sums, panel, left, depth)
    elif groups == 3:
        _outer_tile(TILE, 3, sums, panel, left, depth)
    else:
        _outer_tile(TILE, 4, sums, panel, left, depth)


cdef void _pack_left(
    const real** dz,  # [depth] of [M]
    Py_ssize_t start,
    Py_ssize_t columns,
    Py_ssize_t depth,
    real* left,  # OUT [⌈columns / TILE⌉][depth][TILE], zeros behind the last column
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
    Py_ssize_t N,
    Py_ssize_t depth,
    real* panels,  # OUT [⌈N / 4V⌉][depth][4][V]
) noexcept nogil:
    cdef Py_ssize_t b, k, columns
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        for k in range(depth):
            memset(panels + columns, 0, (PANEL - columns) * sizeof(real))
            memcpy(panels, source[k] + b * PANEL, columns * sizeof(real))
            panels += PANEL


cdef void _add_outer(
    const real* left,  # from _pack_left
    Py_ssize_t rows,
    const real* panels,  # from _pack_right
    Py_ssize_t N,
    Py_ssize_t depth,
    real* out,  # [rows, N]: added to
    real* sums,  # scratch [MAX_TILE]
) noexcept nogil:
    cdef Py_ssize_t b, tile, m, r, columns
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        for tile in range(_blocks(rows, TILE)):
            m = tile * TILE
            for r in range(min(rows - m, <Py_ssize_t> TILE)):
                memset(sums + r * PANEL + columns, 0, (PANEL - columns) * sizeof(real))
                memcpy(sums + r * PANEL, out + (m + r) * N + b * PANEL, columns * sizeof(real))
            _outer_compute(
                _blocks(columns, V), sums, panels + b * depth * PANEL, left + m * depth, depth
            )
            for r in range(min(rows - m, <Py_ssize_t> TILE)):
                memcpy(out + (m + r) * N + b * PANEL, sums + r * PANEL, columns * sizeof(real))


cdef struct Outer:
    # One pass over dz for the gradients of W, which met x, and R, which met the h before.
    Py_ssize_t M
    Py_ssize_t N
    Py_ssize_t P  # 0 without R
    const real** dz  # [depth] of [M]
    const real** x  # [depth] of [N]
    const real** h  # [depth] of [P]
    real* dW  # [M, N]
    real* dR  # [M, P]
    real* left  # scratch [SLAB][depth]
    real* x_panels  # scratch
    real* h_panels  # scratch
    real* sums  # scratch [MAX_TILE]


cdef void _sum_outer(const Outer* at, Py_ssize_t depth) noexcept nogil:
    cdef Py_ssize_t slab, m, rows
    _pack_right(at.x, at.N, depth, at.x_panels)
    _pack_right(at.h, at.P, depth, at.h_panels)
    for slab in range(_blocks(at.M, SLAB)):
        m = slab * SLAB
        rows = min(at.M - m, <Py_ssize_t> SLAB)
        _pack_left(at.dz, m, rows, depth, at.left)
        _add_outer(at.left, rows, at.x_panels, at.N, depth, at.dW + m * at.N, at.sums)
        _add_outer(at.left, rows, at.h_panels, at.P, depth, at.dR + m * at.P, at.sums)


def weight_gradient(
    const real[:, :, :] dz,
    const real[:, :, :] x,
    real[:, ::1] dW,
    const real[:, :, :] y=None,
    const real[:, ::1] h0=None,
    real[:, ::1] dR=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
):
    """dW [M, N] = Σ dz[t, b]ᵀ · x[t, b], and with y, dR [M, P] = Σ dz[t, b]ᵀ · h.

    h is y before t, and with no h0, y at t.
    """
    cdef Py_ssize_t T = dz.shape[0], B = dz.shape[1], i, s, t, row, count = 0
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    cdef Outer at
    at.M, at.N, at.P = dz.shape[2], x.shape[2], 0
    _expect_contiguous(dz, "dz")
    _expect_steps(x, T, B, at.N, "x")
    _expect_contiguous(x, "x")
    _expect(dW.shape[0] == at.M and dW.shape[1] == at.N, "dW")
    dW[:, :] = 0
    if y is not None:
        at.P = y.shape[2]
        _expect_steps(y, T, B, at.P, "y")
        _expect_contiguous(y, "y")
        _expect(h0 is None or h0.shape[0] == B and h0.shape[1] == at.P, "h0")
        _expect(dR is not None and dR.shape[0] == at.M and dR.shape[1] == at.P, "dR")
        dR[:, :] = 0
    if at.M == 0 or at.N + at.P == 0 or T * walk.n == 0:
        return

    cdef Py_ssize_t depth = min(walk.n * T, <Py_ssize_t> DEPTH)
    cdef Py_ssize_t x_size = _blocks(at.N, PANEL) * depth * PANEL
    cdef Py_ssize_t h_size = _blocks(at.P, PANEL) * depth * PANEL
    cdef void* memory = _scratch(
        (x_size + h_size + MAX_TILE + SLAB * depth + at.P) * sizeof(real)
        + 3 * depth * sizeof(void*)
    )
    at.dW = &dW[0, 0] if at.N else NULL
    at.dR = &dR[0, 0] if at.P else NULL
    at.x_panels = <real*> _aligned(memory)
    at.h_panels = at.x_panels + x_size
    at.sums = at.h_panels + h_size
    at.dz = <const real**> (at.sums + MAX_TILE)
    at.x = at.dz + depth
    at.h = at.x + depth
    at.left = <real*> (at.h + depth)
    cdef real* zeros = at.left + SLAB * depth
    cdef Series before, first
    if y is not None:
        before = _series(y)
    if h0 is not None:
        first = _states(h0)
    with nogil:
        memset(zeros, 0, at.P * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            for s in range(_live_at(&walk, i)):
                row = _row(&walk, s)
                at.dz[count] = &dz[t, row, 0]
                at.x[count] = &x[t, row, 0] if at.N else NULL
                if at.P and h0 is None:
                    at.h[count] = _at(&before, t, row)
                elif at.P:
                    at.h[count] = _previous(&walk, i, s, &before, &first, zeros)
                count += 1
                if count == depth:
                    _sum_outer(&at, count)
                    count = 0
        _sum_outer(&at, count)
    PyMem_RawFree(memory)
