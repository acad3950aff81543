# The one inner loop: a tile of rows x blocks, whose sums stay in registers.

cdef enum:
    AHEAD = 12  # number of k by which the panel is prefetched ahead, in tiles of 3 rows and more
    # Rows of a tile of one group, and of two, where that many are left. Fewer sums would leave
    # multipliers idle: a product of 8 outputs took 1.5 times as long, one of 16 took 1.2 times as
    # long (Zen 4, AVX2).
    ROWS_OF_ONE = 8
    ROWS_OF_TWO = 6


cdef struct Tile:
    # sums[r][b] = start[r][b] + Σ panel[b][k] first[r][k] + Σ panel[b][first_size + k] second[r][k]
    const real* start  # [rows][blocks][4][V]
    Py_ssize_t start_row  # reals from a row to the next; 0 gives every row the same start
    Py_ssize_t start_block  # reals from a block to the next, as `panel_block`
    const real* panel  # [blocks][first_size + second_size][4][V]
    Py_ssize_t panel_block
    const real** first  # [rows] of [first_size]
    Py_ssize_t first_size
    const real** second  # [rows] of [second_size]
    Py_ssize_t second_size
    real* sums  # OUT [rows][blocks][4][V]
    Py_ssize_t sums_row


cdef inline inlined_void _add_products(
    const int ROWS,
    const int BLOCKS,
    const int GROUPS,
    const int STRIDE,  # reals from one k to the next
    const int LAST,  # index in `acc` of the last group's sum
    vec[4]* acc,
    const real* panel,
    Py_ssize_t panel_block,
    const real** rows,
    Py_ssize_t size,
) noexcept nogil:
    cdef vec w[4]
    cdef const vec* at
    cdef real factor
    cdef Py_ssize_t k
    cdef int r, b, g
    for k in range(size):
        for b in range(BLOCKS):
            at = <const vec*> (panel + b * panel_block + k * STRIDE)
            for g in range(GROUPS):
                w[g] = at[g]
                if ROWS > 1 and (GROUPS == 1 or 4 * (ROWS * BLOCKS + 1) < REGISTERS):
                    KEEP(w[g])  # 8 to 15 % of the time of 2 to 5 rows (Zen 4, AVX2)
                if ROWS > 2 and g % VECS_OF_LINE == 0:
                    PREFETCH(<const real*> (at + g) + AHEAD * STRIDE)
            for r in range(ROWS):
                factor = rows[r][k]
                for g in range(GROUPS - 1):
                    acc[r * BLOCKS + b][g] += w[g] * factor
                acc[r * BLOCKS + b][LAST] += w[GROUPS - 1] * factor


cdef inline inlined_void _tile(
    const int ROWS, const int BLOCKS, const int GROUPS, const bint SPLIT, const Tile* tile
) noexcept nogil:
    """Compute a tile of constant shape: the loop is unrolled, and the sums stay in registers.

    GROUPS is the number of registers computed in a block: 4, or fewer where a matrix ends. With
    SPLIT, a panel holds 3 registers for each k. The last of them has two separate sums: the third
    of `sums` is over `first`, the fourth over `second`.
    """
    cdef vec acc[ROWS_OF_ONE][4]
    cdef const real* panel = tile.panel
    cdef const real** rows = tile.first
    cdef Py_ssize_t size = tile.first_size, block = tile.panel_block
    cdef int part, r, b, g
    for r in range(ROWS):
        for b in range(BLOCKS):
            for g in range(4 if SPLIT else GROUPS):
                acc[r * BLOCKS + b][g] = (
                    <const vec*> (tile.start + r * tile.start_row + b * tile.start_block)
                )[g]
    if SPLIT:
        _add_products(ROWS, BLOCKS, 3, 3 * V, 2, acc, panel, block, rows, size)
        panel += 3 * V * size
        _add_products(ROWS, BLOCKS, 3, 3 * V, 3, acc, panel, block, tile.second, tile.second_size)
    else:
        for part in range(2):
            _add_products(ROWS, BLOCKS, GROUPS, PANEL, GROUPS - 1, acc, panel, block, rows, size)
            panel += size * PANEL
            rows = tile.second
            size = tile.second_size
    for r in range(ROWS):
        for b in range(BLOCKS):
            for g in range(4 if SPLIT else GROUPS):
                (<vec*> (tile.sums + r * tile.sums_row + b * PANEL))[g] = acc[r * BLOCKS + b][g]


cdef void _compute(
    const Tile* tile, Py_ssize_t rows, Py_ssize_t blocks, Py_ssize_t groups
) noexcept nogil:
    """A tile of any shape with rows * blocks <= TILE, or of as many rows as `_most_rows` says.

    With 2 blocks or more, `groups` is 4.
    """
    if rows > TILE and groups == 1:
        _tile(ROWS_OF_ONE, 1, 1, False, tile)
    elif rows > TILE:
        _tile(ROWS_OF_TWO, 1, 2, False, tile)
    elif groups == 1:
        _one_block(1, False, tile, rows)
    elif groups == 2:
        _one_block(2, False, tile, rows)
    elif groups == 3:
        _one_block(3, False, tile, rows)
    else:
        _any_blocks(4, False, tile, rows, blocks)


cdef void _compute_split(const Tile* tile, Py_ssize_t rows, Py_ssize_t blocks) noexcept nogil:
    """As `_compute`, for panels of 3 registers for each k: SPLIT of `_tile`."""
    _any_blocks(3, True, tile, rows, blocks)


cdef inline inlined_void _any_blocks(
    const int GROUPS, const bint SPLIT, const Tile* tile, Py_ssize_t rows, Py_ssize_t blocks
) noexcept nogil:
    if blocks == 1:
        _one_block(GROUPS, SPLIT, tile, rows)
    elif blocks == 2:
        if rows == 1:
            _tile(1, 2, GROUPS, SPLIT, tile)
        elif rows == 2 and TILE >= 4:
            _tile(2, 2, GROUPS, SPLIT, tile)
        elif TILE >= 6:
            _tile(3, 2, GROUPS, SPLIT, tile)
    elif blocks == 3:
        if rows == 1:
            _tile(1, 3, GROUPS, SPLIT, tile)
        elif TILE >= 6:
            _tile(2, 3, GROUPS, SPLIT, tile)
    elif blocks == 4 and TILE >= 4:
        _tile(1, 4, GROUPS, SPLIT, tile)
    elif blocks == 5 and TILE >= 5:
        _tile(1, 5, GROUPS, SPLIT, tile)
    elif TILE >= 6:
        _tile(1, 6, GROUPS, SPLIT, tile)


cdef inline inlined_void _one_block(
    const int GROUPS, const bint SPLIT, const Tile* tile, Py_ssize_t rows
) noexcept nogil:
    if rows == 1:
        _tile(1, 1, GROUPS, SPLIT, tile)
    elif rows == 2:
        _tile(2, 1, GROUPS, SPLIT, tile)
    elif rows == 3:
        _tile(3, 1, GROUPS, SPLIT, tile)
    elif rows == 4 and TILE >= 4:
        _tile(4, 1, GROUPS, SPLIT, tile)
    elif rows == 5 and TILE >= 5:
        _tile(5, 1, GROUPS, SPLIT, tile)
    elif TILE >= 6:
        _tile(6, 1, GROUPS, SPLIT, tile)


cdef inline Py_ssize_t _even(Py_ssize_t left, Py_ssize_t most) noexcept nogil:
    """Size of the next piece of `left`, cut into the fewest pieces of at most `most`, evenly."""
    return left if left <= most else _blocks(left, _blocks(left, most))


cdef inline Py_ssize_t _most_rows(Py_ssize_t groups) noexcept nogil:
    """How many rows a tile of one block has, where that many are left."""
    return ROWS_OF_ONE if groups == 1 else ROWS_OF_TWO if groups == 2 else TILE


cdef inline Py_ssize_t _most_blocks(Py_ssize_t n) noexcept nogil:
    """How many blocks fit a tile beside its rows, of n rows in all."""
    return TILE // _even(max(n, <Py_ssize_t> 1), TILE)
