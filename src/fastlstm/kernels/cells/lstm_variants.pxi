# The LSTM with peepholes, coupled gates, other activations, clip, zoneout and a projection.
# Equations and sources: reference/cells/lstm_variants.py.

cdef struct Variant:
    # The options in which a cell differs from the plain one.
    Activation gate
    Activation candidate
    Activation output
    real clip  # bound of preactivations; infinite for no bound
    bint coupled  # True: f = 1 - i
    bint usual  # True: the activations are sigmoid, tanh and tanh, without clip
    real zoneout_h  # 0 to 1: fraction of the old h that inference keeps
    real zoneout_c  # 0 to 1: fraction of the old c that inference keeps
    const real* peepholes  # [3, H] to i, f and o, or NULL
    # Layer norm, or NULL: see lstm_norm.pxi.
    const real* input_gain  # [4, H]
    const real* hidden_gain  # [4, H]
    const real* gate_bias  # [4, H]
    const real* cell_gain  # [H]
    const real* cell_bias  # [H]
    # Index of the first of three saved arrays: normalized W x, normalized R h, scales; or 0.
    Py_ssize_t normal
    # Indices of gradients; 0 if the cell has no such parameter.
    Py_ssize_t projection_gradient
    Py_ssize_t peephole_gradient
    Py_ssize_t norm_gradient


cdef struct Opened:
    # V units of one row: gates and the new cell before zoneout.
    vec i
    vec f
    vec g
    vec o
    vec c
    vec shown  # the output's activation of c; not used with layer norm
    vec[4] slopes  # slopes of i, f, g, o by their preactivations; unset if these are `usual`


cdef inline const Variant* _variant(const Cell* cell) noexcept nogil:
    return <const Variant*> cell.options


cdef inline vec _gate(
    const Variant* variant, const Activation* activation, vec z, vec* slope
) noexcept nogil:
    return _activate_clipped(activation, variant.clip, z, slope)


cdef inline inlined_void _open(
    const Variant* variant,
    Py_ssize_t H,
    const vec* z,  # [4] preactivations of i, f, g, o without peepholes; halved but for g
    vec c_before,
    Py_ssize_t unit,
    Opened* opened,  # OUT
) noexcept nogil:
    cdef Py_ssize_t n = H - unit
    cdef const real* peepholes = variant.peepholes + unit
    cdef vec[3] into, q
    cdef Py_ssize_t k
    cdef vec zo = z[3], one = vec_of(1)
    cdef real half = 0.5
    into[0], into[1], into[2] = z[0], z[1], z[2]
    if variant.peepholes != NULL:
        into[0] += half * _load(peepholes, n) * c_before
        into[1] += half * _load(peepholes + H, n) * c_before
    if variant.coupled:  # unused; overwritten, so that it cannot influence the shared division
        into[1] = into[0]
    if variant.usual:
        for k in range(3):
            _tanh_fraction(into[k], &into[k], &q[k])
        _into_cell(into, q, &opened.i, &opened.f, &opened.g)
    else:
        opened.i = _gate(variant, &variant.gate, into[0] + into[0], &opened.slopes[0])
        opened.f = _gate(variant, &variant.gate, into[1] + into[1], &opened.slopes[1])
        opened.g = _gate(variant, &variant.candidate, into[2], &opened.slopes[2])
    if variant.coupled:
        opened.f = one - opened.i
        opened.slopes[1] = vec_of(0)
    opened.c = opened.f * c_before + opened.i * opened.g
    if variant.peepholes != NULL:
        zo += half * _load(peepholes + 2 * H, n) * opened.c
    if variant.usual:
        _tanh_fraction(zo, &zo, &q[0])
        _out_of_cell(zo, q[0], opened.c, &opened.o, &opened.shown)
    else:
        opened.o = _gate(variant, &variant.gate, zo + zo, &opened.slopes[3])
        opened.shown = _activate(&variant.output, opened.c)


cdef inline vec _zoned(
    const Pass* f,
    const ForwardStep* at,
    Py_ssize_t s,
    Py_ssize_t unit,
    int part,  # of the state
    const Flags* flags,
    real chance,
    vec fresh,
) noexcept nogil:
    """V numbers of the state after zoneout: old ones where flagged; in inference, their mean."""
    cdef Py_ssize_t n = f.cell.sizes[part] - unit
    cdef const unsigned char* kept = _flags_at(flags, at.t, _row(&f.walk, s))
    cdef vec before
    if kept == NULL and (f.training or chance == 0):
        return fresh
    before = _load(at.before[part][s] + unit, n)
    if kept != NULL:
        return _where(vec_of_flags(kept + unit, n), before, fresh)
    if chance == 1:
        return before
    return vec_of(chance) * before + (vec_of(1) - vec_of(chance)) * fresh


cdef inline void _store_opened(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const Opened* opened
) noexcept nogil:
    """Store the new c of V units; in training, gates and slopes too."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit, k
    cdef real* gates
    cdef real* slopes
    cdef vec c = _zoned(
        f, at, s, unit, 1, &f.drawn.kept_c, _variant(f.cell).zoneout_c, opened.c
    )
    _store(at.after[1][s] + unit, c, n)
    if at.gates == NULL:
        return
    gates = at.gates[s] + unit
    _store(gates, opened.i, n)
    _store(gates + H, opened.f, n)
    _store(gates + 2 * H, opened.g, n)
    _store(gates + 3 * H, opened.o, n)
    if f.cell.slopes:
        slopes = _at(&f.saved[f.cell.slopes], at.t, _row(&f.walk, s)) + unit
        for k in range(4):
            _store(slopes + k * H, opened.slopes[k], n)


cdef inline void _store_h(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, vec h, real* target
) noexcept nogil:
    """Store V numbers of the new h, after zoneout."""
    h = _zoned(f, at, s, unit, 0, &f.drawn.kept_h, _variant(f.cell).zoneout_h, h)
    _store(target + unit, h, f.cell.P - unit)


cdef inline void _finish_variant(
    const Pass* f, const ForwardStep* at, Py_ssize_t s, Py_ssize_t unit, const vec* z, const vec* q
) noexcept nogil:
    cdef const Variant* variant = _variant(f.cell)
    cdef Opened opened
    cdef vec c_before = _load(at.before[1][s] + unit, f.cell.H - unit)
    _open(variant, f.cell.H, z, c_before, unit, &opened)
    _store_opened(f, at, s, unit, &opened)
    if f.cell.projection == NULL:
        _store_h(f, at, s, unit, opened.o * opened.shown, at.after[0][s])
    else:
        _store(at.after[0][s] + unit, opened.o * opened.shown, f.cell.H - unit)


cdef void _variant_gates(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    _gate_step(False, False, 0, _finish_variant, f, at, 0, at.met)


cdef void _zoned_gates(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    """The only phase of a cell that has zoneout and is plain otherwise."""
    if f.training:
        _lstm_gates(f, at, team)
    else:
        _variant_gates(f, at, team)


cdef void _variant_project(
    const Pass* f, const ForwardStep* at, const Team* team
) noexcept nogil:
    """The phase that projects the hidden units to y and applies zoneout to y."""
    cdef Py_ssize_t begin, end, s, unit
    _project(f, at, team)
    _even_part(team, f.cell.P, PANEL, &begin, &end)
    for s in range(at.n):
        unit = begin
        while unit < end:
            _store_h(f, at, s, unit, _load(at.y[s] + unit, f.cell.P - unit), at.y[s])
            unit += V


cdef inline void _variant_units_backward(
    const Pass* f,
    const BackwardStep* at,
    Py_ssize_t s,
    Py_ssize_t unit,
    vec c,  # the new cell before zoneout
    vec d_c,  # gradient of c through the output alone
    vec d_o,  # gradient of o's preactivation
    const vec* reached,  # from `_reached`; NULL: all units
) noexcept nogil:
    """Replace V units of gates by their gradients, and d of c by that of the c before."""
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t H = f.cell.H, n = H - unit, row = _row(&f.walk, s)
    cdef const unsigned char* kept_c = _flags_at(&f.drawn.kept_c, at.t, row)
    cdef const real* peepholes = variant.peepholes + unit
    cdef real* gates = at.gates[s] + unit
    cdef real* sums
    cdef vec i = _load(gates, n), forget_gate = _load(gates + H, n), g = _load(gates + 2 * H, n)
    cdef vec before = _load(at.before[1][s] + unit, n)
    cdef vec d_after = _load(at.d[1][s] + unit, n), past = vec_of(0), kept, d_i, d_f, d_g
    cdef real one = 1
    if kept_c != NULL:
        kept = vec_of_flags(kept_c + unit, n)
        past = _where(kept, d_after, vec_of(0))
        d_after = _where(kept, vec_of(0), d_after)
    if reached != NULL:
        i, forget_gate = _drop(i, reached[0]), _drop(forget_gate, reached[0])
        g, before = _drop(g, reached[0]), _drop(before, reached[0])
    d_c += d_after
    if variant.peepholes != NULL:
        d_c += d_o * _load(peepholes + 2 * H, n)
    d_f = d_c * before
    d_i = d_c * g
    if variant.coupled:
        d_i -= d_f
    d_i *= _slope_of(f, at, s, 0, unit, i * (one - i))
    d_f *= vec_of(0) if variant.coupled else (
        _slope_of(f, at, s, 1, unit, forget_gate * (one - forget_gate))
    )
    d_g = d_c * i * _slope_of(f, at, s, 2, unit, one - g * g)
    if reached != NULL:  # slopes of dropped units may be NaN
        d_i, d_f, d_g = _drop(d_i, reached[0]), _drop(d_f, reached[0]), _drop(d_g, reached[0])
    past += d_c * forget_gate
    if variant.peepholes != NULL:
        past += d_i * _load(peepholes, n) + d_f * _load(peepholes + H, n)
        sums = _at(&f.row_sums, 0, row) + unit
        _add_lanes(sums, d_i * before, n)
        _add_lanes(sums + H, d_f * before, n)
        _add_lanes(sums + 2 * H, d_o * c, n)
    if _is_cut(&f.walk, at.i, s):
        past = vec_of(0)
    _store(at.d[1][s] + unit, past, n)
    _store(gates, d_i, n)
    _store(gates + H, d_f, n)
    _store(gates + 2 * H, d_g, n)
    _store(gates + 3 * H, d_o, n)


cdef inline vec _fresh_c(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """The new cell before zoneout."""
    cdef Py_ssize_t H = f.cell.H, n = H - unit
    cdef const real* gates = at.gates[s] + unit
    if f.drawn.kept_c.data == NULL:
        return _load(at.after[1][s] + unit, n)
    return (
        _load(gates + H, n) * _load(at.before[1][s] + unit, n)
        + _load(gates, n) * _load(gates + 2 * H, n)
    )


cdef void _variant_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that replaces gates by their gradients."""
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t s, unit, begin = at.begin, end = at.end, H = f.cell.H, n, gate
    cdef vec c, dh, o, shown, slope, d_o, d_c, kept, reached
    cdef bint zoned = f.cell.zoned
    cdef real one = 1
    if f.cell.projection_transposed != NULL:
        _even_part(team, H, PANEL, &begin, &end)
    for s in range(at.n):
        unit = begin
        while unit < end:
            n = H - unit
            _prefetch_step_before(f, at, s, unit)
            c = _fresh_c(f, at, s, unit)
            dh, o = _load(_d_hidden(f, at, s) + unit, n), _load(at.gates[s] + 3 * H + unit, n)
            if zoned:
                d_c = _load(at.d[1][s] + unit, n)
                kept = _kept_lanes(f, &f.drawn.kept_c, at.t, s, unit)
                reached = _reached(dh, _where(kept, vec_of(0), d_c))
                c, o = _drop(c, reached), _drop(o, reached)
            if variant.usual:
                shown = _tanh(c)
                slope = one - shown * shown
            else:
                shown = _activate_both(&variant.output, c, &slope)
            d_o = dh * shown * _slope_of(f, at, s, 3, unit, o * (one - o))
            if zoned:
                d_o = _drop(d_o, reached)
            _variant_units_backward(
                f, at, s, unit, c, dh * o * slope, d_o, &reached if zoned else NULL
            )
            unit += V
        if variant.peepholes != NULL:
            for gate in range(3):
                _carry_sums(f, at, _row(&f.walk, s), gate * H + begin, end - begin)


cdef void _variant_output_and_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """Both phases in one, for cells in which a unit's gates need the output of this unit only."""
    _output_backward(f, at, team)
    _variant_cells_backward(f, at, team)


cdef void _zoned_cells_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """As `_lstm_cells_backward`, for a cell with zoneout."""
    _output_backward(f, at, team)
    _lstm_units_backward(f, at, at.begin, at.end)


cdef void _variant_state_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that computes the gradient of the h before from those of the gates."""
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t s
    # With layer norm, the gradient of R h differs from that of the preactivation.
    cdef const Series* dz = &f.saved[variant.normal + 1 if variant.normal else 0]
    _product_into_state(f, at, dz, 4 * f.cell.H, f.cell.recurrent[0], False)
    if f.drawn.factors.data != NULL:
        _drop_state(f, at)
    if f.drawn.kept_h.data != NULL:
        for s in range(at.n):
            _add_to(
                at.d[0][s] + at.begin,
                f.shared + s * f.cell.back_shared + at.begin,
                at.end - at.begin,
            )
    _cut_state(f, at)


cdef Py_ssize_t _variant_sums(const Pass* f, Outer* sums) noexcept nogil:
    cdef const Variant* variant = _variant(f.cell)
    cdef Py_ssize_t H = f.cell.H, count = 1
    if variant.normal:
        sums[0] = _outer(&f.walk, f.saved[variant.normal], 4 * H)
        sums[1] = _outer(&f.walk, f.saved[variant.normal + 1], 4 * H)
        _meet_x(f, &sums[0])
        _meet_h(f, &sums[1])
        count = 2
    else:
        _lstm_sums(f, sums)
    if variant.projection_gradient:
        sums[count] = _outer(&f.walk, f.series, f.cell.P)
        sums[count].x, sums[count].N = f.saved[2], H
        sums[count].dW = f.gradients[variant.projection_gradient]
        count += 1
    return count


cdef void _variant_after_sums(const Pass* f) noexcept nogil:
    cdef const Variant* variant = _variant(f.cell)
    if variant.peephole_gradient:
        _add_rows(f, 0, 3 * f.cell.H, f.gradients[variant.peephole_gradient])
    if variant.normal:
        _norm_after_sums(f)
    else:
        _copy_bias(f)
