# The sums of outer.pxi where x has fewer than V numbers, as in a series of one feature. A register
# holds numbers of one column of the sums, since a row would fill only a part of it.

cdef enum:
    COLUMNS = 3  # columns that are summed together, while that many are left


cdef inline inlined_void _columns_tile(
    const int GROUPS,
    const int N,
    const real** dz,  # [depth] of [row + rows]
    Py_ssize_t row,
    Py_ssize_t rows,  # GROUPS * V, or fewer if GROUPS is 1
    const real** source,  # [depth] of [column + N]
    Py_ssize_t column,
    Py_ssize_t depth,
    vec[4]* sums,  # OUT [N] of [GROUPS]
) noexcept nogil:
    """sums[n] = Σ source[k][column + n] dz[k], for the numbers of dz from `row` on."""
    cdef vec acc[COLUMNS][4]
    cdef vec lanes[4]
    cdef real factor
    cdef Py_ssize_t k
    cdef int n, g
    for n in range(N):
        for g in range(GROUPS):
            acc[n][g] = vec_of(0)
    for k in range(depth):
        for g in range(GROUPS):
            lanes[g] = _load(dz[k] + row + g * V, V if GROUPS > 1 else rows)
        for n in range(N):
            factor = source[k][column + n]
            for g in range(GROUPS):
                acc[n][g] += lanes[g] * factor
    for n in range(N):
        for g in range(GROUPS):
            sums[n][g] = acc[n][g]


cdef void _add_few_columns(
    const real** dz,  # [depth] of [M]
    Py_ssize_t begin,
    Py_ssize_t end,
    const real** source,  # [depth] of [N]
    Py_ssize_t N,
    Py_ssize_t depth,
    real* out,  # [M, N]: rows `begin` to `end` are added to; OUT if `fresh`
    bint fresh,
) noexcept nogil:
    """As `_add_outer`, with the same bits."""
    cdef vec sums[COLUMNS][4]
    cdef Py_ssize_t m = begin, column, columns, rows, r, n
    cdef real* at
    cdef real sum
    while m < end:
        rows = PANEL if end - m >= PANEL else min(end - m, <Py_ssize_t> V)
        column = 0
        while column < N:
            columns = COLUMNS if N - column >= COLUMNS else 1
            if rows == PANEL and columns == 1:
                _columns_tile(4, 1, dz, m, rows, source, column, depth, sums)
            elif rows == PANEL:
                _columns_tile(4, COLUMNS, dz, m, rows, source, column, depth, sums)
            elif columns == 1:
                _columns_tile(1, 1, dz, m, rows, source, column, depth, sums)
            else:
                _columns_tile(1, COLUMNS, dz, m, rows, source, column, depth, sums)
            for r in range(rows):
                at = out + (m + r) * N + column
                for n in range(columns):
                    sum = (<real*> sums[n])[r]
                    at[n] = sum if fresh else at[n] + sum
            column += columns
        m += rows
