# Gradients of weights: sums of outer products over all rows of all steps.

cdef enum:
    DEPTH = 256  # rows of the batch that are summed before the sums are written to memory
    SLAB = 96  # rows of the weight that are packed together; a multiple of every TILE


cdef inline inlined_void _outer_tile(
    const int ROWS,
    const int GROUPS,
    real* sums,  # [ROWS][4][V]: added to
    const real* panel,  # [depth][4][V]
    const real* left,  # [depth][TILE]
    Py_ssize_t depth,
) noexcept nogil:
    """As `_tile`, with the numbers of all rows for one k next to each other in `left`."""
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
    cdef Py_ssize_t b, tile, m, r, columns
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        for tile in range(_blocks(rows, TILE)):
            m = tile * TILE
            if fresh:
                memset(sums, 0, MAX_TILE * sizeof(real))
            for r in range(0 if fresh else min(rows - m, <Py_ssize_t> TILE)):
                memset(sums + r * PANEL + columns, 0, (PANEL - columns) * sizeof(real))
                memcpy(sums + r * PANEL, out + (m + r) * N + b * PANEL, columns * sizeof(real))
            _outer_compute(
                _blocks(columns, V), sums, panels + b * depth * PANEL, left + m * depth, depth
            )
            for r in range(min(rows - m, <Py_ssize_t> TILE)):
                memcpy(out + (m + r) * N + b * PANEL, sums + r * PANEL, columns * sizeof(real))


cdef void _set_outer(
    const real* dz,  # [rows]
    Py_ssize_t rows,
    const real* source,  # [N]
    const real* factors,  # [N] of `source`, or NULL
    Py_ssize_t N,
    real* out,  # OUT [rows, N]
) noexcept nogil:
    """The outer product of one pair of vectors, where nothing is summed."""
    cdef Py_ssize_t b, m, n
    cdef vec lanes
    for b in range(_blocks(N, V)):
        n = N - b * V
        lanes = _load(source + b * V, n)
        if factors != NULL:
            lanes = _drop(lanes, _load(factors + b * V, n))
        for m in range(rows):
            _store(out + m * N + b * V, vec_of(0) + lanes * dz[m], n)


cdef struct Outer:
    # One pass over dz for the gradients of W, which multiplied x, and R, which multiplied h.
    Walk walk
    Py_ssize_t M
    Py_ssize_t N
    Py_ssize_t P  # 0 without R
    Series dz  # of [M]
    Series x  # of [N]
    Series y  # of [P]
    bint before  # True: pair dz[t] with y[t-1] (h0 at t=0); False: with y[t]
    Series h0
    Series factors  # [B, P]: factors of the h that R multiplied; no data for none
    real* dW  # OUT [M, N]
    real* dR  # OUT [M, P]
    real* db  # OUT [M], or NULL


cdef struct OuterRows:
    # Up to DEPTH rows of the batch from any steps, and scratch memory.
    const real** dz  # [depth] of [M]
    const real** x  # [depth] of [N]
    const real** h  # [depth] of [P]
    const real** factors  # [depth] of [P], or NULL
    real* left  # scratch [SLAB][depth]
    real* x_panels  # scratch [⌈N / 4V⌉][depth][4][V]
    real* h_panels  # scratch [⌈P / 4V⌉][depth][4][V]
    real* sums  # [MAX_TILE]
    Watch* watch


cdef void _add_columns(
    const real** dz,  # [depth] of [M]
    Py_ssize_t start,
    Py_ssize_t columns,
    Py_ssize_t depth,
    real* out,  # [M]: added to; OUT if `fresh`
    bint fresh,
) noexcept nogil:
    cdef Py_ssize_t k, m, at
    cdef vec lanes
    for m in range(_blocks(columns, V)):
        at = start + m * V
        lanes = vec_of(0) if fresh else _load(out + at, columns - m * V)
        for k in range(depth):
            lanes += _load(dz[k] + at, columns - m * V)
        _store(out + at, lanes, columns - m * V)


cdef void _sum_rows(
    const Outer* f,
    const OuterRows* at,
    Py_ssize_t depth,
    bint fresh,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Rows `begin` to `end` of the gradients."""
    cdef Py_ssize_t slab, m, rows = end - begin
    if fresh and depth == 1:
        if f.db != NULL:
            _add_columns(at.dz, begin, rows, 1, f.db, True)
        if f.N:
            _set_outer(at.dz[0] + begin, rows, at.x[0], NULL, f.N, f.dW + begin * f.N)
        if f.P:
            _set_outer(
                at.dz[0] + begin,
                rows,
                at.h[0],
                at.factors[0] if at.factors != NULL else NULL,
                f.P,
                f.dR + begin * f.P,
            )
        return
    _pack_right(at.x, NULL, f.N, depth, at.x_panels)
    _pack_right(at.h, at.factors, f.P, depth, at.h_panels)
    for slab in range(_blocks(end - begin, SLAB)):
        m = begin + slab * SLAB
        rows = min(end - m, <Py_ssize_t> SLAB)
        if _stops(at.watch, rows * depth * (f.N + f.P)):
            return
        if f.db != NULL:
            _add_columns(at.dz, m, rows, depth, f.db, fresh)
        _pack_left(at.dz, m, rows, depth, at.left)
        _add_outer(at.left, rows, at.x_panels, f.N, depth, f.dW + m * f.N, fresh, at.sums)
        _add_outer(at.left, rows, at.h_panels, f.P, depth, f.dR + m * f.P, fresh, at.sums)


cdef inline Py_ssize_t _depth(const Outer* f) noexcept nogil:
    return min(f.walk.n * f.walk.T, <Py_ssize_t> DEPTH)


cdef Py_ssize_t _outer_scratch(const Outer* f) noexcept nogil:
    """Bytes that `_sum_outer` needs."""
    cdef Py_ssize_t columns = (_blocks(f.N, PANEL) + _blocks(f.P, PANEL)) * PANEL
    return (
        ((columns + SLAB) * _depth(f) + MAX_TILE + f.P) * sizeof(real)
        + 4 * _depth(f) * sizeof(void*)
    )


cdef void _sum_outer(const void* arguments, Team* team, void* memory) noexcept nogil:
    cdef const Outer* f = <const Outer*> arguments
    cdef Py_ssize_t piece = -1, pieces = _pieces(team, 2, _blocks(f.M, TILE)), M = f.M
    while _next_piece(team, &piece, pieces):
        _sum_some(f, M * piece // pieces, M * (piece + 1) // pieces, memory, team.watch)


cdef void _sum_some(
    const Outer* f, Py_ssize_t begin, Py_ssize_t end, void* memory, Watch* watch
) noexcept nogil:
    """Rows `begin` to `end` of the gradients, over all steps."""
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t depth = _depth(f), count = 0, i, s, t, row
    cdef bint fresh = True
    cdef OuterRows at
    at.watch = watch
    at.x_panels = <real*> _aligned(memory)
    at.h_panels = at.x_panels + _blocks(f.N, PANEL) * depth * PANEL
    at.sums = at.h_panels + _blocks(f.P, PANEL) * depth * PANEL
    at.dz = <const real**> (at.sums + MAX_TILE)
    at.x = at.dz + depth
    at.h = at.x + depth
    at.factors = at.h + depth if f.factors.data != NULL else NULL
    at.left = <real*> (at.h + 2 * depth)
    cdef real* zeros = at.left + SLAB * depth
    memset(zeros, 0, f.P * sizeof(real))
    for i in range(walk.T):
        t = _step(walk, i)
        for s in range(_live_at(walk, i)):
            row = _row(walk, s)
            at.dz[count] = _at(&f.dz, t, row)
            at.x[count] = _at(&f.x, t, row)
            if f.P and f.before:
                at.h[count] = _previous(walk, i, s, &f.y, &f.h0, zeros)
            elif f.P:
                at.h[count] = _at(&f.y, t, row)
            if at.factors != NULL:
                at.factors[count] = _at(&f.factors, 0, row)
            count += 1
            if count == depth:
                _sum_rows(f, &at, count, fresh, begin, end)
                count, fresh = 0, False
    if count or fresh:
        _sum_rows(f, &at, count, fresh, begin, end)


cdef inline Outer _outer(const Walk* walk, Series dz, Py_ssize_t M) noexcept nogil:
    """An `Outer` of dz without a factor; the caller sets x, or y, or both."""
    cdef Outer f
    memset(&f, 0, sizeof(f))
    f.walk, f.dz, f.M = walk[0], dz, M
    return f


def weight_gradient(const real[:, ::1] dz, const real[:, ::1] x, real[:, ::1] dW):
    """Set dW [M, N] to Σ dz[k]ᵀ · x[k] for dz [K, M] and x [K, N]."""
    cdef Py_ssize_t K = dz.shape[0], M = dz.shape[1], N = x.shape[1]
    cdef Walk walk = _whole_walk(1, K, False)
    cdef Outer f
    _expect(x.shape[0] == K, "x")
    _expect(dW.shape[0] == M and dW.shape[1] == N, "dW")
    if K * M * N == 0:
        dW[:, :] = 0
        return
    f = _outer(&walk, _contiguous(<real*> &dz[0, 0], K, M), M)
    f.x, f.N, f.dW = _contiguous(<real*> &x[0, 0], K, N), N, &dW[0, 0]
    _lead(_sum_outer, &f, _outer_scratch(&f), 1)
