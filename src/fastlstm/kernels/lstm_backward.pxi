# The LSTM back through time. Equations and sources: reference/__init__.py.

cdef inline void _cell_backward(
    real* gates,  # IN [4, H] from a unit on: i, f, g, o; OUT: gradients before the activations
    Py_ssize_t H,
    const real* c,  # [n]
    const real* c_before,  # [n]
    const real* d_hidden,  # [n]
    real* d_cell,  # IN [n] gradient of c; OUT of c_before, through the carousel
    Py_ssize_t n,
) noexcept nogil:
    cdef vec i = _load(gates, n), f = _load(gates + H, n)
    cdef vec g = _load(gates + 2 * H, n), o = _load(gates + 3 * H, n)
    cdef vec squashed = _tanh(_load(c, n)), dh = _load(d_hidden, n)
    cdef vec dc = _load(d_cell, n) + dh * o * (1 - squashed * squashed)
    _store(gates, dc * g * i * (1 - i), n)
    _store(gates + H, dc * _load(c_before, n) * f * (1 - f), n)
    _store(gates + 2 * H, dc * i * (1 - g * g), n)
    _store(gates + 3 * H, dh * squashed * o * (1 - o), n)
    _store(d_cell, dc * f, n)


cdef struct Backward:
    Walk walk
    Py_ssize_t H
    Py_ssize_t P
    const real* recurrent
    const real* projection  # NULL for none
    Series gates
    Series cells
    Series c0
    Series dy
    Series dh
    Series dc
    Series dprojected


cdef inline void _prefetch_step_before(
    const Backward* f,
    const real* gates,
    const real* c_before,
    const real* dy,
    Py_ssize_t unit,
) noexcept nogil:
    """As `_prefetch_step`, on the way back."""
    cdef Py_ssize_t gate
    gates += unit - _stride(&f.walk, &f.gates)
    for gate in range(4):
        PREFETCH(gates + gate * f.H)
    PREFETCH(c_before + unit - _stride(&f.walk, &f.cells))
    PREFETCH(dy + unit - _stride(&f.walk, &f.dy))


cdef Py_ssize_t _backward_scratch(const Backward* f) noexcept nogil:
    """Bytes that `_lstm_walk_back` wants."""
    return (
        _padded(MAX_TILE * sizeof(real))
        + (f.H + f.walk.n * f.H) * sizeof(real)
        + 4 * f.walk.n * sizeof(void*)
    )


cdef void _lstm_walk_back(const void* arguments, Team* team, void* memory) noexcept nogil:
    """The whole sequence; for one of a team, its part of every step that it comes to.

    Each step has two phases: all gates' gradients, and what they make of dh. The parts are the same
    units in both, so that the first phase of a step waits for nobody.
    """
    cdef const Backward* f = <const Backward*> arguments
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t P = f.P, H = f.H, panels = _blocks(P, PANEL), step = -1
    cdef Py_ssize_t i, t, s, n, k, row, unit, begin, end, unit_end
    cdef real* sums = <real*> _aligned(memory)
    cdef const real** gate_rows = <const real**> (sums + MAX_TILE)
    cdef real** dh_rows = <real**> (gate_rows + walk.n)
    cdef real** d_hidden = dh_rows + walk.n
    cdef const real** dp_rows = <const real**> (d_hidden + walk.n)
    cdef real* zeros = <real*> (dp_rows + walk.n)
    cdef real* wide_dh = zeros + H
    cdef real* gates
    cdef real* dh
    cdef const real* dy
    cdef const real* c
    cdef const real* c_before
    memset(zeros, 0, H * sizeof(real))
    while _begin_step(team, &step, walk.T, panels):
        i = walk.T - 1 - step
        t = _step(walk, i)
        n = _live_at(walk, i)
        _part(team, panels, &begin, &end)
        begin, end = begin * PANEL, min(P, end * PANEL)
        unit_end = end if f.projection == NULL else H
        for s in range(n):
            row = _row(walk, s)
            dh, dy = _at(&f.dh, 0, row), _at(&f.dy, t, row)
            gate_rows[s] = _at(&f.gates, t, row)
            d_hidden[s], dh_rows[s] = dh, dh + begin
            for k in range(begin, end):
                dh[k] += dy[k]
            if f.projection != NULL:
                dp_rows[s] = _at(&f.dprojected, t, row)
                memcpy(_at(&f.dprojected, t, row), dh, P * sizeof(real))
                d_hidden[s] = wide_dh + s * H
        if f.projection != NULL:
            _multiply(dp_rows, n, P, f.projection, H, d_hidden, NULL, False, sums)
        for s in range(n):
            row = _row(walk, s)
            gates, c, dy = _at(&f.gates, t, row), _at(&f.cells, t, row), _at(&f.dy, t, row)
            c_before = _previous(walk, i, s, &f.cells, &f.c0, zeros)
            unit = begin
            while unit < unit_end:
                _prefetch_step_before(f, gates, c_before, dy, unit)
                _cell_backward(
                    gates + unit,
                    H,
                    c + unit,
                    c_before + unit,
                    d_hidden[s] + unit,
                    _at(&f.dc, 0, row) + unit,
                    H - unit,
                )
                unit += V
        _phase_done(team, 2 * step + 1)
        _wait_for_all(team, 2 * step + 1)
        _multiply(
            gate_rows,
            n,
            4 * H,
            f.recurrent + begin * 4 * H,
            end - begin,
            dh_rows,
            NULL,
            False,
            sums,
        )
        for s in range(n):
            row = _row(walk, s)
            if _is_reset(walk, t, row):
                memset(dh_rows[s], 0, (end - begin) * sizeof(real))
                memset(_at(&f.dc, 0, row) + begin, 0, (unit_end - begin) * sizeof(real))
        _phase_done(team, 2 * step + 2)
        if team.member == 0 and (step + 1 == walk.T or _may_change(team, step)):
            _wait_for_all(team, 2 * step + 2)


def lstm_backward(
    real[:, :, :, ::1] gates,
    const real[:, :, ::1] cells,
    const real[:, ::1] c0,
    const real[:, :, :] dy,
    real[:, ::1] dh,
    real[:, ::1] dc,
    const real[:, :, :, ::1] recurrent,
    const real[:, :, :, ::1] projection=None,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, ::1] dprojected=None,
    Py_ssize_t threads=1,
):
    """Back through time: see reference/lstm.py."""
    cdef Py_ssize_t T = gates.shape[0], B = gates.shape[1]
    cdef Backward f
    f.H, f.P = gates.shape[3], dh.shape[1]
    f.walk = _walk(T, B, rows, live, resets, reverse)
    _expect(gates.shape[2] == 4, "gates")
    _expect_steps(cells, T, B, f.H, "cells")
    _expect_steps(dy, T, B, f.P, "dy")
    _expect_contiguous(dy, "dy")
    _expect(projection is None or threads == 1, "threads")
    _expect(c0.shape[0] == B and c0.shape[1] == f.H, "c0")
    _expect(dc.shape[0] == B and dc.shape[1] == f.H, "dc")
    _expect(dh.shape[0] == B, "dh")
    _expect_packed(recurrent, f.P, 4 * f.H, "recurrent")
    _expect((dprojected is not None) == (projection is not None), "dprojected")
    if projection is not None:
        _expect_packed(projection, f.H, f.P, "projection")
        _expect_steps(dprojected, T, B, f.P, "dprojected")
    else:
        _expect(f.P == f.H, "dh")
    if f.walk.n == 0 or f.H == 0 or f.P == 0:
        return
    f.recurrent = &recurrent[0, 0, 0, 0]
    f.projection = &projection[0, 0, 0, 0] if projection is not None else NULL
    f.gates, f.cells, f.dy = _series(gates[:, :, 0]), _series(cells), _series(dy)
    f.c0, f.dh, f.dc = _states(c0), _states(dh), _states(dc)
    if projection is not None:
        f.dprojected = _series(dprojected)
    _lead(_lstm_walk_back, &f, _backward_scratch(&f), threads)
