# Packing, dense products, weight gradients.

cdef enum:
    CHUNK = 96  # rows whose pointers are gathered at a time
    DEPTH = 256  # rows of the batch that a weight gradient sums between two trips to memory
    SLAB = 96  # rows of the weight, a multiple of every TILE, that it takes together


def pack(const real[:, :] matrix):
    """`matrix` [N, K] as panels [⌈N / 4V⌉, K, 4, V], zeros behind its last row."""
    cdef Py_ssize_t n, k, N = matrix.shape[0], K = matrix.shape[1]
    cdef real* column
    result = _aligned_empty((_blocks(N, PANEL), K, 4, V))
    cdef real[:, :, :, ::1] panels = result
    if N % PANEL:
        result[len(result) - 1] = 0
    for n in range(N if K else 0):
        column = &panels[n // PANEL, 0, 0, 0] + n % PANEL
        for k in range(K):
            column[k * PANEL] = matrix[n, k]
    return result


cdef int _expect_contiguous(const real[:, :, :] array, str name) except -1:
    """The kernels step through the last axis by pointer."""
    _expect(array.shape[2] <= 1 or array.strides[2] == sizeof(real), name)
    return 0


cdef int _expect_steps(
    const real[:, :, :] array, Py_ssize_t T, Py_ssize_t B, Py_ssize_t N, str name
) except -1:
    _expect(array.shape[0] == T and array.shape[1] == B and array.shape[2] == N, name)
    return 0


cdef int _expect_packed(
    const real[:, :, :, ::1] panels, Py_ssize_t N, Py_ssize_t K, str name
) except -1:
    """What `pack` makes of a matrix [N, K]."""
    _expect(panels.shape[0] == _blocks(N, PANEL) and panels.shape[1] == K, name)
    _expect(panels.shape[2] == 4 and panels.shape[3] == V, name)
    return 0


cdef void _multiply(
    const real** a,  # [n] of [K]
    Py_ssize_t n,
    Py_ssize_t K,
    const real* panels,  # [⌈N / 4V⌉][K][4][V]
    Py_ssize_t N,
    real** out,  # [n] of [N]
    const real* bias,  # [N] or NULL
    bint accumulate,
    real* sums,  # scratch [MAX_TILE]
) noexcept nogil:
    """out[s] = a[s] · panels (+ bias) (+ out[s])."""
    cdef Py_ssize_t b = 0, s, r, rows, width, groups, group, at, row_size
    cdef Py_ssize_t blocks = _blocks(N, PANEL), most = TILE // _even(max(n, 1), TILE)
    cdef vec lanes
    cdef Tile tile
    tile.start, tile.start_block, tile.panel_block = sums, PANEL, K * PANEL
    tile.first_size, tile.second_size, tile.second, tile.sums = K, 0, NULL, sums
    while b < blocks:
        width = _even(blocks - b, most)
        row_size = width * PANEL
        groups = min(_blocks(N - b * PANEL, V), 4) if width == 1 else 4
        tile.panel = panels + b * K * PANEL
        tile.start_row = tile.sums_row = row_size
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            for r in range(rows):
                for group in range(4 * width):
                    lanes = vec_of(0)
                    at = b * PANEL + group * V
                    if bias != NULL and at < N:
                        lanes = _load(bias + at, N - at)
                    if accumulate and at < N:
                        lanes += _load(out[s + r] + at, N - at)
                    (<vec*> (sums + r * row_size))[group] = lanes
            tile.first = a + s
            _compute(&tile, rows, width, groups)
            for r in range(rows):
                memcpy(
                    out[s + r] + b * PANEL,
                    sums + r * row_size,
                    min(N - b * PANEL, row_size) * sizeof(real),
                )
            s += rows
        b += width


def product(
    const real[:, :, :] a,
    const real[:, :, :, ::1] packed,
    real[:, :, :] out,
    const real[::1] bias=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    bint accumulate=False,
):
    """out [T, B, N] = a [T, B, K] · packedᵀ + bias [N]; rows that have ended get zeros."""
    cdef Py_ssize_t T = a.shape[0], B = a.shape[1], K = a.shape[2], N = out.shape[2]
    cdef Py_ssize_t t, s, count = 0
    cdef Walk walk = _walk(T, B, rows, live, None, False)
    _expect(out.shape[0] == T and out.shape[1] == B, "out")
    _expect_packed(packed, N, K, "packed")
    _expect(bias is None or bias.shape[0] == N, "bias")
    _expect_contiguous(a, "a")
    _expect_contiguous(out, "out")
    if T * B * N == 0:
        return
    cdef void* memory = _scratch(MAX_TILE * sizeof(real) + 2 * CHUNK * sizeof(void*))
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** source = <const real**> (sums + MAX_TILE)
    cdef real** target = <real**> (source + CHUNK)
    cdef const real* panels = &packed[0, 0, 0, 0] if K else NULL
    cdef const real* start = &bias[0] if bias is not None else NULL
    with nogil:
        for t in range(T):
            for s in range(walk.n):
                if s < _live_at(&walk, t):
                    source[count] = &a[t, _row(&walk, s), 0]
                    target[count] = &out[t, _row(&walk, s), 0]
                    count += 1
                elif not accumulate:
                    memset(&out[t, _row(&walk, s), 0], 0, N * sizeof(real))
                if count == CHUNK:
                    _multiply(source, count, K, panels, N, target, start, accumulate, sums)
                    count = 0
        _multiply(source, count, K, panels, N, target, start, accumulate, sums)
    PyMem_RawFree(memory)


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


cdef void _add_outer(
    const real** dz,  # [depth] of [M]
    Py_ssize_t M,
    const real** source,  # [depth] of [N]
    Py_ssize_t N,
    Py_ssize_t depth,
    real[:, ::1] out,  # [M, N]: added to
    real* left,  # scratch [SLAB][DEPTH]
    real* panels,  # scratch [⌈N / 4V⌉][DEPTH][4][V]
    real* sums,  # scratch [MAX_TILE]
) noexcept nogil:
    """out += Σ dz[k]ᵀ · source[k]."""
    cdef Py_ssize_t b, k, m, r, rows, columns, slab
    cdef real* panel
    for b in range(_blocks(N, PANEL)):
        columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
        for k in range(depth):
            panel = panels + (b * depth + k) * PANEL
            memset(panel + columns, 0, (PANEL - columns) * sizeof(real))
            memcpy(panel, source[k] + b * PANEL, columns * sizeof(real))
    slab = 0
    while slab < M:
        _pack_left(dz, slab, min(M - slab, <Py_ssize_t> SLAB), depth, left)
        for b in range(_blocks(N, PANEL)):
            columns = min(N - b * PANEL, <Py_ssize_t> PANEL)
            m = slab
            while m < min(M, slab + SLAB):
                rows = min(M - m, <Py_ssize_t> TILE)
                for r in range(rows):
                    memset(sums + r * PANEL + columns, 0, (PANEL - columns) * sizeof(real))
                    memcpy(sums + r * PANEL, &out[m + r, b * PANEL], columns * sizeof(real))
                _outer_compute(
                    _blocks(columns, V),
                    sums,
                    panels + b * depth * PANEL,
                    left + (m - slab) * depth,
                    depth,
                )
                for r in range(rows):
                    memcpy(&out[m + r, b * PANEL], sums + r * PANEL, columns * sizeof(real))
                m += rows
        slab += SLAB


def weight_gradient(
    const real[:, :, :] dz,
    const real[:, :, :] source,
    real[:, ::1] out,
    const real[:, :] first=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
):
    """out [M, N] = Σ dz[t, b]ᵀ · source[t, b], or what came before it: see reference.py."""
    cdef Py_ssize_t T = dz.shape[0], B = dz.shape[1], M = dz.shape[2], N = source.shape[2]
    cdef Py_ssize_t i, s, t, count = 0
    cdef Walk walk = _walk(T, B, rows, live, resets, reverse)
    _expect(source.shape[0] == T and source.shape[1] == B, "source")
    _expect(out.shape[0] == M and out.shape[1] == N, "out")
    _expect(first is None or (first.shape[0] == B and first.shape[1] == N), "first")
    _expect_contiguous(dz, "dz")
    _expect_contiguous(source, "source")
    if first is not None:
        _expect(first.shape[1] <= 1 or first.strides[1] == sizeof(real), "first")
    out[:, :] = 0
    if M * N == 0:
        return
    cdef Py_ssize_t depth = min(walk.n * T, <Py_ssize_t> DEPTH)
    cdef Py_ssize_t panels_size = _blocks(N, PANEL) * depth * PANEL
    cdef void* memory = _scratch(
        (panels_size + MAX_TILE + SLAB * depth + N) * sizeof(real) + 2 * depth * sizeof(void*) + 64
    )
    cdef real* panels = <real*> _aligned(memory)
    cdef real* sums = panels + panels_size
    cdef const real** left = <const real**> (sums + MAX_TILE)
    cdef const real** right = left + depth
    cdef real* left_packed = <real*> (right + depth)
    cdef real* zeros = left_packed + SLAB * depth
    with nogil:
        memset(zeros, 0, N * sizeof(real))
        for i in range(T):
            t = _step(&walk, i)
            for s in range(_live_at(&walk, i)):
                left[count] = &dz[t, _row(&walk, s), 0]
                if first is None:
                    right[count] = &source[t, _row(&walk, s), 0]
                else:
                    right[count] = _previous(&walk, i, s, source, first, zeros)
                count += 1
                if count == depth:
                    _add_outer(left, M, right, N, count, out, left_packed, panels, sums)
                    count = 0
        _add_outer(left, M, right, N, count, out, left_packed, panels, sums)
    PyMem_RawFree(memory)
