# The cell with peepholes, coupled gates, other activations, clipping, layer norm and zoneout.
# Equations and sources: reference/lstm_general.py.

cdef struct Variant:
    # How a cell differs from the plain one.
    Py_ssize_t H
    Activation gate
    Activation candidate
    Activation output
    real clip  # of preactivations; infinite for none
    bint coupled
    bint usual  # whether i, f and g are two sigmoids and a tanh, not clipped
    const real* peepholes  # [3, H] to i, f and o, or NULL
    const real* norm  # [NORM_ROWS, H] or NULL


cdef struct Units:
    # V units of one row in one step.
    vec i
    vec f
    vec g
    vec o
    vec c  # the new cell, before zoneout
    vec i_slope  # by the preactivation, as are the others
    vec f_slope
    vec g_slope
    vec o_slope


cdef Variant _variant(
    Py_ssize_t H,
    const real[:, ::1] activations,
    real clip,
    bint coupled,
    const real[:, ::1] peepholes,
    const real[:, ::1] norm,
) except *:
    cdef Variant variant
    _expect(activations.shape[0] == 3 and activations.shape[1] == 3, "activations")
    variant.H, variant.clip, variant.coupled = H, clip, coupled
    variant.gate = _activation(<int> activations[0, 0], activations[0, 1], activations[0, 2])
    variant.candidate = _activation(<int> activations[1, 0], activations[1, 1], activations[1, 2])
    variant.output = _activation(<int> activations[2, 0], activations[2, 1], activations[2, 2])
    variant.usual = (
        variant.gate.kind == SIGMOID
        and variant.candidate.kind == TANH
        and variant.clip == <real> INFINITY
    )
    variant.peepholes = variant.norm = NULL
    if peepholes is not None:
        _expect(peepholes.shape[0] == 3 and peepholes.shape[1] == H, "peepholes")
        variant.peepholes = &peepholes[0, 0] if H else NULL
    if norm is not None:
        _expect(norm.shape[0] == NORM_ROWS and norm.shape[1] == H, "norm")
        variant.norm = &norm[0, 0] if H else NULL
    return variant


cdef inline void _open_gates(
    const bint SLOPES,
    const Variant* variant,
    const vec* z,  # [4] preactivations of i, f, g, o, without peepholes
    vec c_before,
    Py_ssize_t unit,
    Units* units,  # OUT
) noexcept nogil:
    cdef Py_ssize_t H = variant.H, n = H - unit
    cdef const real* peepholes = variant.peepholes + unit
    cdef vec into[3]
    cdef vec zo = z[3], one = vec_of(1)
    cdef real half = 0.5
    into[0], into[1], into[2] = z[0], z[1], z[2]
    if variant.peepholes != NULL:
        into[0] += _load(peepholes, n) * c_before
        into[1] += _load(peepholes + H, n) * c_before
    if variant.coupled:  # the forget gate's own may not even touch the rounding
        into[1] = into[0]
    if variant.usual:
        into[0] *= half
        into[1] *= half
        _into_cell(into, &units.i, &units.f, &units.g)
        if SLOPES:
            units.i_slope = units.i * (one - units.i)
            units.f_slope = units.f * (one - units.f)
            units.g_slope = one - units.g * units.g
    else:
        units.i = _gate(SLOPES, variant, &variant.gate, into[0], &units.i_slope)
        units.f = _gate(SLOPES, variant, &variant.gate, into[1], &units.f_slope)
        units.g = _gate(SLOPES, variant, &variant.candidate, into[2], &units.g_slope)
    if variant.coupled:
        units.f = one - units.i
        units.f_slope = vec_of(0)
    units.c = units.f * c_before + units.i * units.g
    if variant.peepholes != NULL:
        zo += _load(peepholes + 2 * H, n) * units.c
    units.o = _gate(SLOPES, variant, &variant.gate, zo, &units.o_slope)


cdef inline vec _gate(
    const bint SLOPES, const Variant* variant, const Activation* activation, vec z, vec* slope
) noexcept nogil:
    return _activate_clipped(activation, variant.clip, z, slope if SLOPES else NULL)


cdef inline vec _shown(const Variant* variant, vec c, Py_ssize_t unit, vec* slope) noexcept nogil:
    """The output's activation of c, which with layer norm is a normalised one."""
    cdef Py_ssize_t H = variant.H, n = H - unit
    if variant.norm != NULL:
        c = c * _load(variant.norm + CELL_GAIN * H + unit, n)
        c += _load(variant.norm + CELL_BIAS * H + unit, n)
    return _activate_both(&variant.output, c, slope)


cdef inline vec _zoned(
    vec before, vec fresh, const unsigned char* kept, real chance, Py_ssize_t n
) noexcept nogil:
    """Zoneout: `before` where kept; without flags, the expectation of it."""
    cdef vec share = vec_of(chance)
    if kept != NULL:
        share = vec_of_flags(kept, n)
    return share * before + (vec_of(1) - share) * fresh


cdef void _variant_cell(
    const Variant* variant,
    const real* z,  # [blocks][4][V]
    const real* c_before,  # [H]; may be c_after
    real* c_after,  # OUT [H]
    real* h,  # OUT [H]
    const unsigned char* kept_c,  # [H] or NULL
    real zoneout_c,
    Units* units,  # scratch [blocks]
    real* normal,  # scratch [blocks][V]
) noexcept nogil:
    """c' and h of one row."""
    cdef Py_ssize_t b, unit, n
    cdef vec c
    for b in range(_blocks(variant.H, V)):
        unit = b * V
        n = variant.H - unit
        c = _load(c_before + unit, n)
        _open_gates(False, variant, <const vec*> (z + b * PANEL), c, unit, &units[b])
        (<vec*> (normal + unit))[0] = vec_of(0)
        _store(normal + unit, units[b].c, n)
        if kept_c != NULL or zoneout_c > 0:
            c = _zoned(
                c, units[b].c, kept_c + unit if kept_c != NULL else NULL, zoneout_c, n
            )
            _store(c_after + unit, c, n)
        else:
            _store(c_after + unit, units[b].c, n)
        if variant.norm == NULL:
            _store(h + unit, units[b].o * _shown(variant, units[b].c, unit, NULL), n)
    if variant.norm != NULL:
        _standardise(normal, V, variant.H)
        for b in range(_blocks(variant.H, V)):
            unit = b * V
            c = (<const vec*> (normal + unit))[0]
            _store(
                h + unit, units[b].o * _shown(variant, c, unit, NULL), variant.H - unit
            )
