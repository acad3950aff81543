# Packed matrices, and dense products with them.

cdef enum:
    CHUNK = 192  # rows whose pointers are collected for one call of `_multiply`
    # Bytes of a row that are multiplied at once. With more, the rows and a panel would not fit the
    # second cache: a product of 128 rows of 4096 float32 took half as long again (Cascade Lake).
    DEEP = 4096


cdef called_void _pack_rows(
    real* target,  # OUT [K] of [rows], `step` reals apart
    Py_ssize_t step,
    const Matrix* matrix,  # [N, K]
    Py_ssize_t begin,
    Py_ssize_t rows,
    real scale,
) noexcept nogil:
    """The rows of `matrix` from `begin` on, times `scale`, as columns.

    A matrix with contiguous rows is read in squares of vectors, one with contiguous columns column
    by column, and any other number by number.
    """
    cdef Py_ssize_t n, k = 0, j, at, K = matrix.K, row = matrix.row, column = matrix.column
    cdef const char* source = matrix.data + begin * row
    cdef const real* numbers
    cdef vec[V] square
    if row == sizeof(real):
        for k in range(K):
            numbers = <const real*> (source + k * column)
            for n in range(_blocks(rows, V)):
                at = n * V
                _store(target + k * step + at, scale * _load(numbers + at, rows - at), rows - at)
        return
    if TRANSPOSES and column == sizeof(real) and rows % V == 0:
        while k <= K - V:
            for n in range(rows // V):
                for j in range(V):
                    square[j] = (<const vec*> (source + (n * V + j) * row + k * column))[0]
                vec_transpose(square)
                for j in range(V):
                    (<vec*> (target + (k + j) * step + n * V))[0] = scale * square[j]
            k += V
    while k < K:
        for n in range(rows):
            target[k * step + n] = scale * _element(matrix, begin + n, k)
        k += 1


def pack(matrix, /):
    """Return `matrix` [N, K] as panels [⌈N / 4V⌉, K, 4, V], with zeros after its last row."""
    cdef Matrix m = _matrix(matrix, "matrix")
    cdef Py_ssize_t n, N = m.N, K = m.K
    result = _aligned_empty((_blocks(N, PANEL), K, 4, V), N % PANEL)
    for n in range(_blocks(N, PANEL)):
        PyErr_CheckSignals()
        _pack_rows(
            _data(result) + n * K * PANEL, PANEL, &m, n * PANEL, min(N - n * PANEL, PANEL), 1
        )
    return result


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
    Watch* watch,
) noexcept nogil:
    """out[s] = a[s] · panels (+ bias) (+ out[s])."""
    cdef Py_ssize_t k = 0, size, most = DEEP // sizeof(real)
    while True:
        size = _even(K - k, most) if k < K else 0
        _multiply_part(a, n, k, size, K, panels, N, out, bias, accumulate, sums, watch)
        k += size
        if k == K:
            return
        # The sums of this part, exact in `out`, go on: the order of additions is that of one part.
        bias, accumulate = NULL, True


cdef void _multiply_part(
    const real** a,
    Py_ssize_t n,
    Py_ssize_t k,  # the first of the columns of `a` that are multiplied
    Py_ssize_t size,  # number of these
    Py_ssize_t K,
    const real* panels,
    Py_ssize_t N,
    real** out,
    const real* bias,
    bint accumulate,
    real* sums,
    Watch* watch,
) noexcept nogil:
    cdef Py_ssize_t b = 0, s, r, rows, width, groups, group, at, row_size
    cdef const real* from_k[ROWS_OF_ONE]
    cdef Py_ssize_t blocks = _blocks(N, PANEL), most = _most_blocks(n)
    cdef vec lanes
    cdef Tile tile
    tile.start, tile.start_block, tile.panel_block = sums, PANEL, K * PANEL
    tile.first_size, tile.second_size, tile.second, tile.sums = size, 0, NULL, sums
    tile.first = from_k
    while b < blocks:
        width = _even(blocks - b, most)
        groups = min(_blocks(N - b * PANEL, V), 4) if width == 1 else 4
        row_size = (4 * (width - 1) + groups) * V
        tile.panel = panels + (b * K + k) * PANEL
        tile.start_row = tile.sums_row = row_size
        s = 0
        while s < n:
            rows = _most_rows(groups)
            if n - s < rows:
                rows = _even(n - s, TILE)
            if _stops(watch, rows * row_size * size):
                return
            for r in range(rows):
                from_k[r] = a[s + r] + k
                for group in range(row_size // V):
                    lanes = vec_of(0)
                    at = b * PANEL + group * V
                    if bias != NULL and at < N:
                        lanes = _load(bias + at, N - at)
                    if accumulate and at < N:
                        lanes += _load(out[s + r] + at, N - at)
                    (<vec*> (sums + r * row_size))[group] = lanes
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
    """Bytes that `_multiply_all` needs."""
    return MAX_TILE * sizeof(real) + 2 * CHUNK * sizeof(void*)


cdef void _multiply_all(const void* arguments, Team* team, void* memory) noexcept nogil:
    cdef const Product* f = <const Product*> arguments
    cdef Py_ssize_t piece = -1, pieces = _pieces(team, 4, f.walk.T), T = f.walk.T
    while _next_piece(team, &piece, pieces):
        _multiply_steps(f, T * piece // pieces, T * (piece + 1) // pieces, memory, team.watch)


cdef void _multiply_steps(
    const Product* f, Py_ssize_t begin, Py_ssize_t end, void* memory, Watch* watch
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
                    source, count, f.K, f.panels, f.N, target, f.bias, f.accumulate, sums, watch
                )
                count = 0
    _multiply(source, count, f.K, f.panels, f.N, target, f.bias, f.accumulate, sums, watch)


def linear(x, packed, Py_ssize_t outputs, bias, /):
    """Return a new y [..., outputs] = x [..., K] · packedᵀ + bias.

    Returns NotImplemented unless x is contiguous, of this build's dtype and of K columns.
    `packed` is the result of pack(matrix [outputs, K]).
    """
    cdef Product f
    cdef int axes
    if not (cnp.PyArray_CheckExact(x) and _ndim(x) and _is_dense(x)):
        return NotImplemented
    axes = _ndim(x)
    f.K, f.N, f.accumulate = _dim(x, axes - 1), outputs, False
    if not (cnp.PyArray_CheckExact(packed) and _ndim(packed) == 4):
        raise ValueError("packed: expected what pack gives")
    if _dim(packed, 1) != f.K:
        return NotImplemented
    _expect(_is_packed(packed, f.N, f.K), "packed")
    f.bias = NULL
    if bias is not None:
        _expect(_is_ready(bias, 1) and _dim(bias, 0) == f.N, "bias")
        f.bias = _data(bias)
    cdef cnp.npy_intp[64] shape
    cdef Py_ssize_t axis, rows = 1
    for axis in range(axes):
        shape[axis] = _dim(x, axis)
        rows *= shape[axis] if axis < axes - 1 else 1
    shape[axes - 1] = f.N
    y = cnp.PyArray_EMPTY(axes, shape, REAL, 0)
    if rows == 0:
        return y
    f.walk = _whole_walk(1, rows, False)
    f.a = _contiguous(_data(x), rows, f.K)
    f.out = _contiguous(_data(y), rows, f.N)
    f.panels = _data(packed)
    _lead(_multiply_all, &f, _product_scratch(), 1)
    return y
