# The LSTM with layer norm (Ba, Kiros & Hinton 2016, eq. 20 to 22). A cell of a row needs all
# preactivations of the row, and an output needs all its cells.

cdef void _norm_sums(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    """The phase of W x and R h, as separate sums in scratch memory of the whole team."""
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t s, rows, b, width, most = _most_blocks(at.n)
    cdef Py_ssize_t size = cell.blocks * PANEL, block = (1 + cell.inputs + cell.P) * PANEL
    cdef Tile tile
    tile.panel_block, tile.sums_row, tile.start_row = block, cell.shared, 0
    tile.second, tile.second_size = NULL, 0
    b = at.begin
    while b < at.end:
        width = _even(at.end - b, most)
        s = 0
        while s < at.n:
            rows = _even(at.n - s, TILE)
            if _stops(at.watch, rows * width * PANEL * (cell.inputs + cell.P)):
                return
            tile.sums = f.shared + s * cell.shared + b * PANEL
            if at.hoisted != NULL:
                _copy_sums(at.hoisted + s * size + b * PANEL, size, &tile, rows, width)
            else:
                tile.start, tile.start_block = cell.panels + b * block, block
                tile.panel = tile.start + PANEL
                tile.first, tile.first_size = at.x + s, cell.inputs
                _compute(&tile, rows, width, 4)
            tile.sums += size
            tile.start, tile.start_block = f.zeros, 0
            tile.panel = cell.panels + b * block + (1 + cell.inputs) * PANEL
            tile.first, tile.first_size = at.met + s, cell.P
            _compute(&tile, rows, width, 4)
            s += rows
        b += width


cdef inline void _copy_sums(
    const real* z, Py_ssize_t row, const Tile* tile, Py_ssize_t rows, Py_ssize_t width
) noexcept nogil:
    """Copy W x that was computed ahead to the tile's sums."""
    cdef Py_ssize_t r
    for r in range(rows):
        memcpy(tile.sums + r * tile.sums_row, z + r * row, width * PANEL * sizeof(real))


cdef void _norm_cells(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    """The phase of the cells; each thread computes some of the rows."""
    cdef Py_ssize_t s, begin, end
    _even_part(team, at.n, 1, &begin, &end)
    for s in range(begin, end):
        _norm_row(f, at, s)


cdef void _norm_row(const Pass* f, const ForwardStep* at, Py_ssize_t s) noexcept nogil:
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t H = f.cell.H, blocks = f.cell.blocks, b, g, unit, n, row = _row(&f.walk, s)
    cdef real* z = f.shared + s * f.cell.shared  # [blocks][4][V]: W x
    cdef real* z_hidden = z + blocks * PANEL  # R h
    cdef real* normal = at.own  # [blocks][V]: the cells, normalized
    cdef real* output_gate = normal + blocks * V
    cdef real* scales = NULL  # [2, 4]: of W x and R h
    cdef vec[4] into
    cdef vec h
    cdef real scale_x, scale_h, half = 0.5
    cdef Opened opened
    cdef real* normal_x = NULL  # [4, H]
    cdef real* normal_h = NULL
    if f.training:
        normal_x = _at(&f.saved[variant.normal], at.t, row)
        normal_h = _at(&f.saved[variant.normal + 1], at.t, row)
        scales = _at(&f.saved[variant.normal + 2], at.t, row)
    for g in range(4):
        scale_x = _standardize(z + g * V, PANEL, H, normal_x + g * H if f.training else NULL)
        scale_h = _standardize(z_hidden + g * V, PANEL, H, normal_h + g * H if f.training else NULL)
        if f.training:
            scales[g], scales[4 + g] = scale_x, scale_h
    for b in range(blocks):
        unit = b * V
        n = H - unit
        for g in range(4):
            into[g] = _norm_gate(
                variant,
                (<const vec*> (z + b * PANEL))[g],
                (<const vec*> (z_hidden + b * PANEL))[g],
                g * H + unit,
                n,
            )
            if g != 2:
                into[g] *= half
        _open(variant, H, into, _load(at.before[1][s] + unit, n), unit, &opened)
        _store_opened(f, at, s, unit, &opened)
        (<vec*> (output_gate + unit))[0] = opened.o
        (<vec*> (normal + unit))[0] = vec_first(opened.c, n)
    _standardize(normal, V, H, NULL)
    for b in range(blocks):
        unit = b * V
        h = (<const vec*> (output_gate + unit))[0] * _activate(
            &variant.output, _shown(variant, (<const vec*> (normal + unit))[0], H, unit)
        )
        if f.cell.projection == NULL:
            _store_h(f, at, s, unit, h, at.after[0][s])
        else:
            _store(at.after[0][s] + unit, h, H - unit)


cdef inline vec _norm_gate(
    const Variant* variant, vec of_x, vec of_h, Py_ssize_t place, Py_ssize_t n
) noexcept nogil:
    """A preactivation: LN(W x) gain + LN(R h) gain + bias."""
    cdef vec z = of_x * _load(variant.input_gain + place, n)
    z += of_h * _load(variant.hidden_gain + place, n)
    return z + _load(variant.gate_bias + place, n)


cdef inline vec _shown(
    const Variant* variant, vec normal, Py_ssize_t H, Py_ssize_t unit
) noexcept nogil:
    """The argument of the output's activation: LN(c) gain + bias."""
    cdef Py_ssize_t n = H - unit
    return normal * _load(variant.cell_gain + unit, n) + _load(variant.cell_bias + unit, n)


cdef void _norm_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that replaces gates, W x and R h by their gradients; each thread does some rows."""
    cdef Py_ssize_t s, begin, end
    _even_part(team, at.n, 1, &begin, &end)
    for s in range(begin, end):
        _norm_row_backward(f, at, s)


cdef void _norm_row_backward(
    const Pass* f, const BackwardStep* at, Py_ssize_t s
) noexcept nogil:
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t H = f.cell.H, blocks = _blocks(H, V), b, g, place, unit, n
    cdef Py_ssize_t row = _row(&f.walk, s)
    cdef real* normal = at.own  # [blocks][V]: the new cells, normalized
    cdef real* d_shown = normal + blocks * V  # gradient of the argument of the output's activation
    cdef real* d_output = d_shown + blocks * V  # gradient of o's preactivation
    cdef real* of_x = _at(&f.saved[variant.normal], at.t, row)
    cdef real* of_h = _at(&f.saved[variant.normal + 1], at.t, row)
    cdef const real* scales = _at(&f.saved[variant.normal + 2], at.t, row)
    cdef const real* d_hidden = _d_hidden(f, at, s)
    cdef real* d_bias = _at(&f.row_sums, 0, row) + 3 * H  # [4, H], as the next two
    cdef real* d_input_gain = d_bias + 4 * H
    cdef real* d_hidden_gain = d_input_gain + 4 * H
    cdef real* d_cell_gain = d_hidden_gain + 4 * H  # [H], as the next
    cdef real* d_cell_bias = d_cell_gain + H
    cdef real scale, one = 1
    cdef vec dh, o, shown, slope
    for b in range(blocks):
        unit = b * V
        (<vec*> (normal + unit))[0] = vec_first(_fresh_c(f, at, s, unit), H - unit)
    scale = _standardize(normal, V, H, NULL)
    for b in range(blocks):
        unit = b * V
        n = H - unit
        dh, o = _load(d_hidden + unit, n), _load(at.gates[s] + 3 * H + unit, n)
        shown = _activate_both(
            &variant.output, _shown(variant, (<const vec*> (normal + unit))[0], H, unit), &slope
        )
        _store(d_shown + unit, dh * o * slope, n)
        _store(d_output + unit, dh * shown * _slope_of(f, at, s, 3, unit, o * (one - o)), n)
    _add_to(d_cell_bias, d_shown, H)
    _standardize_backward(d_shown, normal, scale, variant.cell_gain, d_shown, d_cell_gain, H)
    for b in range(blocks):
        unit = b * V
        n = H - unit
        _variant_units_backward(
            f,
            at,
            s,
            unit,
            _fresh_c(f, at, s, unit),
            _load(d_shown + unit, n),
            _load(d_output + unit, n),
            NULL,
        )
    _add_to(d_bias, at.gates[s], 4 * H)
    for g in range(4):
        place = g * H
        _standardize_backward(
            at.gates[s] + place,
            of_x + place,
            scales[g],
            variant.input_gain + place,
            of_x + place,
            d_input_gain + place,
            H,
        )
        _standardize_backward(
            at.gates[s] + place,
            of_h + place,
            scales[4 + g],
            variant.hidden_gain + place,
            of_h + place,
            d_hidden_gain + place,
            H,
        )
    _carry_sums(f, at, row, 0, f.cell.row_sums)


cdef void _norm_after_sums(const Pass* f) noexcept nogil:
    """Sum the gradients of biases, gains and the cell's bias over the rows."""
    cdef Py_ssize_t H = f.cell.H, k = _variant(f.cell).norm_gradient
    if f.cell.has_bias:
        _add_rows(f, 3 * H, 4 * H, f.gradients[2])
        _copy_bias(f)
        _add_rows(f, 16 * H, H, f.gradients[k + 3])
    _add_rows(f, 7 * H, 4 * H, f.gradients[k])
    _add_rows(f, 11 * H, 4 * H, f.gradients[k + 1])
    _add_rows(f, 15 * H, H, f.gradients[k + 2])
