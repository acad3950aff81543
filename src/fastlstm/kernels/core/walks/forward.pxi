# The walk forward through time, the same for every cell.

cdef Py_ssize_t _forward_scratch(const Pass* f, Py_ssize_t n) noexcept nogil:
    """Bytes that `_walk_forward` needs for a walk of up to n rows."""
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t pairs = min(HOIST, f.walk.T * n)
    return (
        _padded(MAX_TILE * sizeof(real))
        + _padded(pairs * cell.sets * cell.blocks * PANEL * sizeof(real))
        + _padded(cell.own * sizeof(real))
        + _padded((n * PANEL if _is_apart(cell, n) else 0) * sizeof(real))
        + _padded((n * cell.P if f.drawn.factors.data != NULL else 0) * sizeof(real))
        + _padded((pairs + (5 + 2 * cell.states) * n) * sizeof(void*))
    )


cdef void _walk_forward(const void* arguments, Team* team, void* memory) noexcept nogil:
    """Walk over the whole sequence; a member of a team computes its part of the steps."""
    cdef const Pass* f = <const Pass*> arguments
    cdef const Walk* walk = &f.walk
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t pairs = min(HOIST, walk.T * walk.n), blocks = cell.sets * cell.blocks
    cdef Py_ssize_t i = -1, s, n, n_before, n_after, row, count, room, state, phase
    cdef Py_ssize_t t_before, set, first
    cdef Py_ssize_t hoist_rows = _hoist_rows(cell.inputs) if walk.T > 1 else 0
    # What `z` holds: W x from some step up to step `prepared`, for units `prepared_begin` to
    # `prepared_end`. Pair `used` is the first of step `reached`.
    cdef Py_ssize_t prepared = 0, prepared_begin = 0, prepared_end = 0, used = 0, reached = 0
    cdef Py_ssize_t T = walk.T, units = cell.blocks, phases = cell.phases
    cdef bint is_cut
    cdef char* free = _aligned(memory)
    cdef ForwardStep at
    at.watch = team.watch
    at.inputs, at.H, at.gate_rows = cell.inputs, cell.H, cell.saved_shape[0][0]
    at.zoned = cell.zoned and f.training
    at.sums = <real*> _take(&free, MAX_TILE * sizeof(real))
    cdef real* z = <real*> _take(&free, pairs * blocks * PANEL * sizeof(real))
    at.own = <real*> _take(&free, cell.own * sizeof(real))
    cdef real* apart = NULL
    if _is_apart(cell, walk.n):
        apart = <real*> _take(&free, walk.n * PANEL * sizeof(real))
    cdef real* dropped = NULL  # [n, P]: h times its factors
    if f.drawn.factors.data != NULL:
        dropped = <real*> _take(&free, walk.n * cell.P * sizeof(real))
    cdef const real** pair_x = <const real**> free
    at.x = pair_x + pairs
    at.y = <real**> (at.x + walk.n)
    at.spare = at.y + walk.n
    cdef real** pointers = at.spare + walk.n
    cdef real** gates = pointers + walk.n
    at.met = <const real**> pointers
    pointers = gates + walk.n
    for state in range(cell.states):
        at.before[state] = <const real**> pointers
        at.after[state] = pointers + walk.n
        pointers += 2 * walk.n
    at.gates = gates if f.training else NULL

    # Where a step writes each part of the state. Without training, parts after the first are
    # updated in place in `last`.
    cdef Series[MOST_STATES] left
    left[0] = f.y
    for state in range(1, cell.states):
        left[state] = f.saved[state] if f.training else f.last[state]
    at.x_stride = _stride(walk, &f.x)
    for state in range(cell.states):
        at.after_stride[state] = _stride(walk, &left[state])
    at.gates_stride = _stride(walk, &f.saved[0]) if f.training else 0
    cdef bint projected = cell.projection != NULL
    cdef Series hidden = f.saved[cell.states]  # the hidden units before a projection
    if projected:
        at.after_stride[0] = _stride(walk, &hidden) if f.training else 0
    else:
        at.after[0] = at.y
    if dropped == NULL:
        at.met = at.before[0]

    if team.member == 0:
        for s in range(walk.n):
            row = _row(walk, s)
            for state in range(cell.states):
                _keep_last(&f.last[state], row, _at(&f.first[state], 0, row), cell.sizes[state])
    while _begin_step(team, &i, T, units):
        _part(team, cell.blocks, &at.begin, &at.end)
        at.i, at.t = i, _step(walk, i)
        at.n = n = _live_at(walk, i)
        n_before, t_before = min(n, _live_at(walk, i - 1)), _step(walk, i - 1)
        _wait_for_step_before(team, phases * i)
        for s in range(n):
            row = _row(walk, s)
            is_cut = _is_cut(walk, i, s)
            at.x[s] = _at(&f.x, at.t, row)
            at.y[s] = _at(&f.y, at.t, row)
            if is_cut:
                at.before[0][s] = f.zeros
            elif s < n_before:
                at.before[0][s] = _at(&f.y, t_before, row)
            else:
                at.before[0][s] = _at(&f.first[0], 0, row)
            if team.same:
                _prefetch_row(at.before[0][s], cell.P)
            for state in range(1, cell.states):
                at.after[state][s] = _at(&left[state], at.t, row)
                if is_cut:
                    at.before[state][s] = f.zeros
                elif not f.training:
                    at.before[state][s] = at.after[state][s]
                elif s < n_before:
                    at.before[state][s] = _at(&left[state], t_before, row)
                else:
                    at.before[state][s] = _at(&f.first[state], 0, row)
            if f.training:
                gates[s] = _at(&f.saved[0], at.t, row)
            if projected and f.training:
                at.after[0][s] = _at(&hidden, at.t, row)
            elif projected:
                at.after[0][s] = f.shared + (s + 1) * cell.shared - cell.H
            if dropped != NULL:
                at.met[s] = dropped + s * cell.P
                _drop_row(
                    dropped + s * cell.P, at.before[0][s], _at(&f.drawn.factors, 0, row), cell.P
                )

        at.hoisted = NULL
        at.apart = apart if _is_apart(cell, n) else NULL
        if 0 < n <= hoist_rows and (team.parts == team.members or i >= LATE):
            if i >= prepared or at.begin < prepared_begin or at.end > prepared_end:
                used, reached = 0, i
                prepared_begin, prepared_end = at.begin, at.end
                room = min(pairs, <Py_ssize_t> 2 * TILE) if _may_grow(team) else pairs
                prepared = _gather(walk, i, &f.x, hoist_rows, room, pair_x, &count)
                for set in range(cell.sets):
                    first = set * cell.blocks
                    _input_part(
                        cell,
                        pair_x,
                        count,
                        first + at.begin,
                        first + at.end,
                        z + (first + at.begin) * PANEL,
                        blocks * PANEL,
                        at.watch,
                    )
                team.kept = prepared
            while reached < i:  # by more than one step after a rest
                used += _live_at(walk, reached)
                reached += 1
            at.hoisted = z + used * blocks * PANEL
        cell.phase[0](f, &at, team)
        for phase in range(1, phases):
            _phase_done(team, phases * i + phase)
            _wait_for_all(team, phases * i + phase)
            cell.phase[phase](f, &at, team)
        _phase_done(team, phases * (i + 1))
        if team.member:
            continue
        n_after = _live_at(walk, i + 1)
        if n_after < n or i + 1 == T or _may_change(team, i):
            _wait_for_all(team, phases * (i + 1))
        for s in range(n, walk.n):
            memset(_at(&f.y, at.t, _row(walk, s)), 0, cell.P * sizeof(real))
        for s in range(n_after, n):
            row = _row(walk, s)
            _keep_last(&f.last[0], row, at.y[s], cell.P)
            for state in range(1, cell.states):
                _keep_last(&f.last[state], row, at.after[state][s], cell.sizes[state])


cdef inline void _keep_last(
    const Series* last, Py_ssize_t row, const real* state, Py_ssize_t size
) noexcept nogil:
    if state != _at(last, 0, row):
        memcpy(_at(last, 0, row), state, size * sizeof(real))


cdef void _project(const Pass* f, const ForwardStep* at, const Team* team) noexcept nogil:
    """The phase that projects the hidden units to y."""
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t begin, end, s
    _even_part(team, cell.P, PANEL, &begin, &end)
    for s in range(at.n):
        at.spare[s] = at.y[s] + begin
    _multiply(
        <const real**> at.after[0],
        at.n,
        cell.H,
        cell.projection + begin * cell.H,
        end - begin,
        at.spare,
        NULL,
        False,
        at.sums,
        at.watch,
    )
