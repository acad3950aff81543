# Preactivations W x + R h + bias of a step's rows: block by block, each followed by its cells.

cdef enum:
    HOIST = 24  # pairs of a step and a row whose W x are computed together
    # Steps at the start of a walk in which more threads are expected to join. In these, no W x is
    # computed ahead, since other threads will probably compute a part of it.
    LATE = 4
    # Bytes of recurrent weights. Above NEAREST, not all panels stay in the first cache. Up to NEAR,
    # a single row is then computed few blocks at a time, as more of the panels are still there: 1
    # to 4 % at hidden 48 to 64 (Zen 4, AVX2), 5 to 15 % in an older measurement. Where all stay, as
    # many blocks as possible are faster, since the sums of one block alone are too few for the
    # multipliers: 11 % at hidden 40, 18 % at 24. A GRU's blocks have only three sums each, so it
    # takes three at a time: 3 to 10 % at hidden 56 to 80.
    NEAREST = 28672
    NEAR = 98304
    # Bytes of a panel and of the vectors that it multiplies. From this many, W x and R h are
    # computed one after the other, so that what either needs is still in the second cache.
    FAR = 786432


cdef inline Py_ssize_t _hoist_rows(Py_ssize_t inputs) noexcept nogil:
    """For steps of up to this many rows, W x is computed ahead for several steps.

    For more rows it is computed together with R h. Measured, time of the latter / of the former
    for 1, 2, 3, 4 rows (Zen 4, AVX-512):

        I    1, H  40   0.88  0.89  0.90  0.89      I   64, H 128   1.15  1.01  1.03  0.97
        I   16, H  40   1.03  0.88  0.97            I  128, H 128   1.18  1.08  1.07  0.96
        I   16, H 128   1.01  0.95  0.97            I  512, H 128   1.77  1.24  1.16  0.99
        I   48, H 128   1.10  0.97  1.00            I  512, H 512   1.41  1.16  1.06  1.07
    """
    if inputs < 16:
        return 0
    return 1 if inputs < 48 else 3


cdef struct ForwardStep:
    # One step of the walk: rows by pointers, [n] each.
    Py_ssize_t i
    Py_ssize_t t
    Py_ssize_t n
    Py_ssize_t inputs
    Py_ssize_t H
    Py_ssize_t gate_rows  # of H numbers each
    bint zoned  # of the cell, in training
    const real** x  # [I]
    const real** met  # [P] h as R multiplies it: with the factors of recurrent dropout
    const real** before[MOST_STATES]  # the state before the step
    real** after[MOST_STATES]  # OUT the state after the step; the hidden units before a projection
    real** y  # OUT [P]
    # OUT the first saved array: activated gates, in an RNN slopes; NULL without training.
    real** gates
    real** spare  # scratch for the phases
    # Reals from a row of `x`, `after` or `gates` to the same row of the next step.
    Py_ssize_t x_stride
    Py_ssize_t[MOST_STATES] after_stride
    Py_ssize_t gates_stride
    # The blocks that this thread computes: `begin` to `end`.
    Py_ssize_t begin
    Py_ssize_t end
    real* hoisted  # [n][sets * blocks][4][V]: W x + bias, or NULL where it was not computed ahead
    real* apart  # scratch [n][4][V] where W x is computed apart, or NULL
    real* sums  # scratch [MAX_TILE]
    real* own  # scratch [cell.own]
    Watch* watch


# Computes the cells of a row's units from `unit` on, from their preactivations z [4]. Of the first
# FRACTIONS of these, z and q hold the numerators and denominators of `_tanh_fraction`.
ctypedef void (*Finish)(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil


cdef inline bint _is_apart(const Cell* cell, Py_ssize_t n) noexcept nogil:
    """Whether W x of n rows is computed before R h, block by block: see FAR."""
    cdef Py_ssize_t size = (cell.inputs + cell.P) * sizeof(real)
    return n >= TILE and size * (n + PANEL) >= FAR and min(cell.inputs, cell.P) >= PANEL


cdef void _input_part(
    const Cell* cell,
    const real** x,  # [n] of [I]
    Py_ssize_t n,
    Py_ssize_t begin,
    Py_ssize_t end,
    real* z,  # OUT [n] of [end - begin][4][V], `z_row` reals apart
    Py_ssize_t z_row,
    Watch* watch,
) noexcept nogil:
    """z = W x + bias in blocks `begin` to `end`, counted over all sets; rows of any steps."""
    cdef Py_ssize_t b = begin, s, rows, width, most = _most_blocks(n)
    cdef Py_ssize_t panel_block = PANEL + (cell.inputs + cell.P) * cell.row_size
    cdef Tile tile
    tile.start_row, tile.start_block, tile.panel_block = 0, panel_block, panel_block
    tile.first_size, tile.second_size, tile.second = cell.inputs, 0, NULL
    tile.sums_row = z_row
    while b < end:
        width = _even(end - b, most)
        if _stops(watch, n * width * PANEL * cell.inputs):
            return
        tile.start = cell.panels + b * panel_block
        tile.panel = tile.start + PANEL
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            tile.first = x + s
            tile.sums = z + s * z_row + (b - begin) * PANEL
            if cell.row_size == PANEL:
                _compute(&tile, rows, width, 4)
            else:
                _compute_split(&tile, rows, width)
            s += rows
        b += width


cdef inline void _prefetch_step(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """Prefetch the next step's arrays for row s, from `unit` on.

    Without it, every step waits for memory: 3 to 6 % of the time with 24 rows or more.
    """
    cdef Py_ssize_t gate, state
    cdef const real* gates
    if unit < at.inputs:
        PREFETCH(at.x[s] + unit + at.x_stride)
    PREFETCH(at.after[0][s] + unit + at.after_stride[0])
    if at.gates != NULL:
        gates = at.gates[s] + unit + at.gates_stride
        for gate in range(at.gate_rows):
            PREFETCH(gates + gate * at.H)
        for state in range(1, f.cell.states):
            PREFETCH(at.after[state][s] + unit + at.after_stride[state])


cdef inline inlined_void _tanh_fractions(
    const int FRACTIONS,
    real* sums,
    Py_ssize_t sums_row,
    Py_ssize_t rows,
    Py_ssize_t width,
    vec* q,  # OUT [rows * width][4]
) noexcept nogil:
    """Replace the first groups of each block of `sums` by the numerators of their tanh.

    A row's cells are a long chain of operations, and these begin it. Done for all rows of a tile
    first, they leave shorter chains, of which a processor has more in progress at a time: 3 to 6 %
    of the time of layers with few inputs (Zen 4, AVX2).
    """
    cdef Py_ssize_t r, w, g
    cdef vec* z
    for r in range(rows):
        for w in range(width):
            z = <vec*> (sums + r * sums_row + w * PANEL)
            for g in range(FRACTIONS):
                _tanh_fraction(z[g], &z[g], &q[g])
            q += 4


cdef inline inlined_void _gate_step(
    const bint SPLIT,  # True: panels are of the form for `_compute_split`
    const bint WIDE,  # True: the 4 groups of a block are neighboring units of one gate
    const int FRACTIONS,  # number of groups whose fractions FINISH needs
    const Finish FINISH,
    const Pass* f,
    const ForwardStep* at,
    Py_ssize_t set,
    const real** met,  # [n] of [P]: the vectors that R multiplies
) noexcept nogil:
    """The preactivations and cells of one set's blocks; the outer loop is over panels.

    Every other step goes through the panels in reverse order, so that it begins with those that
    are still in the cache.
    """
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t n = at.n, P = cell.P, inputs = cell.inputs, part = at.end - at.begin
    cdef Py_ssize_t row_size = 3 * V if SPLIT else PANEL, units = PANEL if WIDE else V
    cdef Py_ssize_t z_row = cell.sets * cell.blocks * PANEL if at.apart == NULL else PANEL
    cdef Py_ssize_t first = set * cell.blocks
    cdef real* z = at.apart
    cdef Py_ssize_t done = 0, width, b, s, rows, r, w, unit, groups
    cdef Py_ssize_t most = _most_blocks(n)
    cdef const real* panels
    cdef vec q[TILE][4]
    cdef Tile tile
    if n == 1 and NEAREST < part * P * row_size * <Py_ssize_t> sizeof(real) <= NEAR:
        most = 3 if SPLIT else 2
    tile.panel_block = PANEL + (inputs + P) * row_size
    panels = cell.panels + first * tile.panel_block
    tile.second, tile.second_size = met, P
    while done < part:
        width = _even(part - done, most)
        b = at.end - done - width if at.i & 1 else at.begin + done
        groups = 4
        if WIDE and width == 1:
            groups = min(_blocks(cell.H - b * units, V), <Py_ssize_t> 4)
        if at.hoisted != NULL:
            z = at.hoisted + (first + b) * PANEL
        elif z != NULL:
            _input_part(cell, at.x, n, first + b, first + b + 1, z, PANEL, at.watch)
        s = 0
        while s < n:
            rows = _even(n - s, TILE)
            if _stops(at.watch, rows * width * PANEL * (inputs + P)):
                return
            tile.start = panels + b * tile.panel_block
            tile.panel = tile.start + PANEL
            tile.first, tile.first_size = at.x + s, inputs
            tile.second = met + s
            if z != NULL:
                tile.panel += inputs * row_size
                tile.first_size = 0
                tile.sums, tile.sums_row, tile.start_row = z + s * z_row, z_row, z_row
                tile.start, tile.start_block = tile.sums, PANEL
            else:
                tile.sums, tile.sums_row = at.sums, width * PANEL
                tile.start_row, tile.start_block = 0, tile.panel_block
            if SPLIT:
                _compute_split(&tile, rows, width)
            else:
                _compute(&tile, rows, width, groups)
            if FRACTIONS:
                _tanh_fractions(FRACTIONS, tile.sums, tile.sums_row, rows, width, q[0])
            for r in range(rows):
                for w in range(width):
                    unit = (b + w) * units
                    _prefetch_step(f, at, s + r, unit)
                    FINISH(
                        f,
                        at,
                        s + r,
                        unit,
                        <vec*> (tile.sums + r * tile.sums_row + w * PANEL),
                        q[r * width + w],
                    )
            s += rows
        done += width
