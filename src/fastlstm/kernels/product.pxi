# Packing and dense products.

cdef enum:
    CHUNK = 96  # rows whose pointers are gathered at a time


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


cdef struct Product:
    Walk walk
    Py_ssize_t K
    Py_ssize_t N
    Series a  # of [K]
    const real* panels
    Series out  # of [N]
    const real* bias  # [N] or NULL
    bint accumulate


cdef Py_ssize_t _product_scratch() noexcept nogil:
    """Bytes that `_multiply_all` wants."""
    return MAX_TILE * sizeof(real) + 2 * CHUNK * sizeof(void*)


cdef void _multiply_all(const void* arguments, Team* team, void* memory) noexcept nogil:
    cdef const Product* f = <const Product*> arguments
    cdef Py_ssize_t piece = -1, pieces = _pieces(team, 4, f.walk.T), T = f.walk.T
    while _next_piece(team, &piece, pieces):
        _multiply_steps(f, T * piece // pieces, T * (piece + 1) // pieces, memory)


cdef void _multiply_steps(
    const Product* f, Py_ssize_t begin, Py_ssize_t end, void* memory
) noexcept nogil:
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t t, s, row, count = 0
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** source = <const real**> (sums + MAX_TILE)
    cdef real** target = <real**> (source + CHUNK)
    for t in range(begin, end):
        for s in range(walk.n):
            row = _row(walk, s)
            if s < _live_at(walk, t):
                source[count], target[count] = _at(&f.a, t, row), _at(&f.out, t, row)
                count += 1
            elif not f.accumulate:
                memset(_at(&f.out, t, row), 0, f.N * sizeof(real))
            if count == CHUNK:
                _multiply(
                    source, count, f.K, f.panels, f.N, target, f.bias, f.accumulate, sums
                )
                count = 0
    _multiply(source, count, f.K, f.panels, f.N, target, f.bias, f.accumulate, sums)


def product(
    const real[:, :, :] a,
    const real[:, :, :, ::1] packed,
    real[:, :, :] out,
    const real[::1] bias=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    bint accumulate=False,
    Py_ssize_t threads=1,
):
    """out [T, B, N] = a [T, B, K] · packedᵀ + bias [N]; rows that have ended get zeros."""
    cdef Product f
    f.walk = _walk(a.shape[0], a.shape[1], rows, live, None, False)
    f.K, f.N, f.accumulate = a.shape[2], out.shape[2], accumulate
    _expect(out.shape[0] == f.walk.T and out.shape[1] == f.walk.B, "out")
    _expect_packed(packed, f.N, f.K, "packed")
    _expect(bias is None or bias.shape[0] == f.N, "bias")
    _expect_contiguous(a, "a")
    _expect_contiguous(out, "out")
    if f.walk.T * f.walk.B * f.N == 0:
        return
    f.a, f.out = _series(a), _series(out)
    f.panels = &packed[0, 0, 0, 0] if f.K else NULL
    f.bias = &bias[0] if bias is not None else NULL
    _lead(_multiply_all, &f, _product_scratch(), threads)
