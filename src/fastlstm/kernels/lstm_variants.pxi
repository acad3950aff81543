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
    variant.peepholes = variant.norm = NULL
    if peepholes is not None:
        _expect(peepholes.shape[0] == 3 and peepholes.shape[1] == H, "peepholes")
        variant.peepholes = &peepholes[0, 0] if H else NULL
    if norm is not None:
        _expect(norm.shape[0] == NORM_ROWS and norm.shape[1] == H, "norm")
        variant.norm = &norm[0, 0] if H else NULL
    return variant


cdef inline vec _clipped(
    const Variant* variant, const Activation* activation, vec z, vec* slope
) noexcept nogil:
    """The activation of a clipped z, and its slope by z unless that is NULL."""
    cdef vec limit = vec_of(variant.clip), y
    if variant.clip == <real> INFINITY:
        return _activate_both(activation, z, slope)
    y = _activate_both(activation, vec_max(-limit, vec_min(limit, z)), slope)
    if slope != NULL:
        slope[0] = vec_if_below(limit, vec_abs(z), vec_of(0), slope[0])
    return y


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
    cdef vec zi = z[0], zf = z[1], zo = z[3]
    if variant.peepholes != NULL:
        zi += _load(peepholes, n) * c_before
    units.i = _clipped(variant, &variant.gate, zi, &units.i_slope if SLOPES else NULL)
    if variant.coupled:
        units.f = vec_of(1) - units.i
        units.f_slope = vec_of(0)
    else:
        if variant.peepholes != NULL:
            zf += _load(peepholes + H, n) * c_before
        units.f = _clipped(variant, &variant.gate, zf, &units.f_slope if SLOPES else NULL)
    units.g = _clipped(variant, &variant.candidate, z[2], &units.g_slope if SLOPES else NULL)
    units.c = units.f * c_before + units.i * units.g
    if variant.peepholes != NULL:
        zo += _load(peepholes + 2 * H, n) * units.c
    units.o = _clipped(variant, &variant.gate, zo, &units.o_slope if SLOPES else NULL)


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
