# The LSTM's walk through time.

cdef struct Forward:
    Walk walk
    Py_ssize_t inputs
    Py_ssize_t H
    Py_ssize_t P
    const real* packed
    const real* projection  # NULL for none
    Series x
    Series h0
    Series c0
    Series y
    Series h_n
    Series c_n
    bint training  # whether the next three are there
    Series gates
    Series cells
    Series hidden


cdef Py_ssize_t _forward_scratch(const Forward* f) noexcept nogil:
    """Bytes that `_lstm_walk` wants."""
    cdef Py_ssize_t pairs = min(HOIST, f.walk.T * f.walk.n)
    return (
        MAX_TILE * sizeof(real)
        + pairs * _blocks(f.H, V) * PANEL * sizeof(real)
        + (max(f.H, f.P) + f.walk.n * f.H) * sizeof(real)
        + (7 * f.walk.n + pairs) * sizeof(void*)
        + 64
    )


cdef void _lstm_walk(const void* arguments, Team* team, void* memory) noexcept nogil:
    """The whole sequence; for one of a team, its part of every step that it comes to."""
    cdef const Forward* f = <const Forward*> arguments
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t P = f.P, H = f.H, blocks = _blocks(H, V)
    cdef Py_ssize_t panel_block = (1 + f.inputs + P) * PANEL
    cdef Py_ssize_t i = -1, t, s, n, row, begin, end, count, room
    cdef Py_ssize_t hoist_rows = _hoist_rows(f.inputs) if walk.T > 1 else 0
    cdef Py_ssize_t used = 0, prepared = 0, prepared_begin = 0, prepared_end = 0
    cdef Py_ssize_t pairs = min(HOIST, walk.T * walk.n)
    cdef real* sums = <real*> _aligned(memory)
    cdef real* z = sums + MAX_TILE
    cdef real* hoisted
    cdef const real** pair_x = <const real**> (z + pairs * blocks * PANEL)
    cdef StepRows at
    at.x = pair_x + pairs
    at.h_before = at.x + walk.n
    at.c_before = at.h_before + walk.n
    at.c_after = <real**> (at.c_before + walk.n)
    at.h_after = at.c_after + walk.n
    at.y = at.h_after + walk.n
    at.gates = at.y + walk.n if f.training else NULL
    at.x_stride, at.h_stride = _stride(walk, &f.x), _stride(walk, &f.y)
    if f.training:
        at.c_stride, at.gates_stride = _stride(walk, &f.cells), _stride(walk, &f.gates)
    if f.projection != NULL:
        at.h_stride = _stride(walk, &f.hidden) if f.training else 0
    cdef real* zeros = <real*> (at.y + 2 * walk.n)
    cdef real* wide_h = zeros + max(H, P)
    memset(zeros, 0, max(H, P) * sizeof(real))
    if team.member == 0:
        for s in range(walk.n):
            row = _row(walk, s)
            memcpy(_at(&f.h_n, 0, row), _at(&f.h0, 0, row), P * sizeof(real))
            memcpy(_at(&f.c_n, 0, row), _at(&f.c0, 0, row), H * sizeof(real))
    while _begin_step(team, &i, walk.T, blocks):
        _part(team, blocks, &begin, &end)
        t = _step(walk, i)
        n = _live_at(walk, i)
        for s in range(n):
            row = _row(walk, s)
            at.x[s] = _at(&f.x, t, row)
            at.y[s] = _at(&f.y, t, row)
            at.h_before[s] = _previous(walk, i, s, &f.y, &f.h0, zeros)
            if f.training:
                at.c_before[s] = _previous(walk, i, s, &f.cells, &f.c0, zeros)
                at.c_after[s] = _at(&f.cells, t, row)
                at.gates[s] = _at(&f.gates, t, row)
            else:
                at.c_after[s] = _at(&f.c_n, 0, row)
                at.c_before[s] = zeros if _is_reset(walk, t, row) else at.c_after[s]
            if f.projection == NULL:
                at.h_after[s] = at.y[s]
            elif f.training:
                at.h_after[s] = _at(&f.hidden, t, row)
            else:
                at.h_after[s] = wide_h + s * H

        hoisted = NULL
        if 0 < n <= hoist_rows and (team.parts == team.members or i >= LATE):
            if i >= prepared or begin < prepared_begin or end > prepared_end:
                used = 0
                prepared_begin, prepared_end = begin, end
                room = min(pairs, <Py_ssize_t> 2 * TILE) if _may_grow(team) else pairs
                prepared = _gather(walk, i, &f.x, hoist_rows, room, pair_x, &count)
                _input_part(
                    pair_x, count, f.inputs, f.packed, blocks, begin, end, panel_block, False, z
                )
                team.kept = prepared
            hoisted = z + used * blocks * PANEL
            used += n
        _lstm_step(&at, n, f.inputs, P, H, f.packed, hoisted, begin, end, sums, i & 1)
        _phase_done(team, i + 1)
        if team.member:
            continue
        _wait_for_all(team, i + 1)
        if f.projection != NULL:
            _multiply(
                <const real**> at.h_after, n, H, f.projection, P, at.y, NULL, False, sums
            )
        for s in range(n, walk.n):
            memset(_at(&f.y, t, _row(walk, s)), 0, P * sizeof(real))
        for s in range(_live_at(walk, i + 1), n):
            row = _row(walk, s)
            memcpy(_at(&f.h_n, 0, row), at.y[s], P * sizeof(real))
            if f.training:
                memcpy(_at(&f.c_n, 0, row), at.c_after[s], H * sizeof(real))


def lstm_forward(
    const real[:, :, :] x,
    const real[:, :, :, ::1] packed,
    const real[:, :, :, ::1] projection,
    const real[:, ::1] h0,
    const real[:, ::1] c0,
    real[:, :, :] y,
    real[:, ::1] h_n,
    real[:, ::1] c_n,
    const Py_ssize_t[::1] rows=None,
    const Py_ssize_t[::1] live=None,
    resets=None,
    bint reverse=False,
    real[:, :, :, ::1] gates=None,
    real[:, :, ::1] cells=None,
    real[:, :, ::1] hidden=None,
    Py_ssize_t threads=1,
):
    """One layer in one direction over the whole sequence: see reference/lstm.py."""
    cdef Py_ssize_t T = x.shape[0], B = x.shape[1]
    cdef Forward f
    f.inputs, f.H, f.P = x.shape[2], c0.shape[1], h0.shape[1]
    f.walk = _walk(T, B, rows, live, resets, reverse)
    f.training = gates is not None
    _expect_contiguous(x, "x")
    _expect_contiguous(y, "y")
    _expect(packed.shape[0] == _blocks(f.H, V), "packed")
    _expect(packed.shape[1] == 1 + f.inputs + f.P, "packed")
    _expect(packed.shape[2] == 4 and packed.shape[3] == V, "packed")
    _expect_steps(y, T, B, f.P, "y")
    _expect(h0.shape[0] == B and h_n.shape[0] == B and h_n.shape[1] == f.P, "h0, h_n")
    _expect(c0.shape[0] == B and c_n.shape[0] == B and c_n.shape[1] == f.H, "c0, c_n")
    _expect((cells is not None) == f.training, "cells")
    if projection is not None:
        _expect_packed(projection, f.P, f.H, "projection")
        _expect((hidden is not None) == f.training, "hidden")
    else:
        _expect(f.P == f.H and hidden is None, "hidden")
    _expect(projection is None or threads == 1, "threads")
    if f.training:
        _expect_steps(cells, T, B, f.H, "cells")
        _expect(gates.shape[0] == T and gates.shape[1] == B, "gates")
        _expect(gates.shape[2] == 4 and gates.shape[3] == f.H, "gates")
        if projection is not None:
            _expect_steps(hidden, T, B, f.H, "hidden")
    if f.walk.n == 0 or f.H == 0 or f.P == 0:
        return
    f.packed = &packed[0, 0, 0, 0]
    f.projection = &projection[0, 0, 0, 0] if projection is not None else NULL
    f.x, f.y = _series(x), _series(y)
    f.h0, f.c0, f.h_n, f.c_n = _states(h0), _states(c0), _states(h_n), _states(c_n)
    if f.training:
        f.gates, f.cells = _series(gates[:, :, 0]), _series(cells)
        if projection is not None:
            f.hidden = _series(hidden)
    _lead(_lstm_walk, &f, _forward_scratch(&f), threads)
