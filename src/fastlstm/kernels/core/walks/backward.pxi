# The walk back through time, the same for every cell.

cdef struct BackwardStep:
    # One step of the walk: rows by pointers, [n] each.
    Py_ssize_t i
    Py_ssize_t t
    Py_ssize_t n
    # IN the first saved array: activated gates, in an RNN slopes; OUT gradients of preactivations.
    real** gates
    const real** dy  # [P]
    const real** before[MOST_STATES]  # the state before the step
    const real** after[MOST_STATES]  # the state after the step; not set for h
    real** d[MOST_STATES]  # the gradient of the state
    const real** source  # scratch for the phases
    real** target
    # The outputs that this thread computes: `begin` to `end`, of P.
    Py_ssize_t begin
    Py_ssize_t end
    real* sums  # scratch [MAX_TILE]
    real* own  # scratch [cell.back_own]
    Watch* watch


cdef Py_ssize_t _backward_scratch(const Pass* f, Py_ssize_t n) noexcept nogil:
    """Bytes that `_walk_backward` needs for a walk of up to n rows."""
    return (
        _padded(MAX_TILE * sizeof(real))
        + _padded(f.cell.back_own * sizeof(real))
        + _padded((4 + 3 * f.cell.states) * n * sizeof(void*))
    )


cdef inline void _prefetch_step_before(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t unit
) noexcept nogil:
    """As `_prefetch_step`, for the walk backward."""
    cdef Py_ssize_t gate, state
    cdef const real* gates = at.gates[s] + unit - _stride(&f.walk, &f.saved[0])
    for gate in range(f.cell.saved_shape[0][0]):
        PREFETCH(gates + gate * f.cell.H)
    for state in range(1, f.cell.states):
        PREFETCH(at.before[state][s] + unit - _stride(&f.walk, &f.saved[state]))
    if f.dy.data != NULL:
        PREFETCH(at.dy[s] + unit - _stride(&f.walk, &f.dy))


cdef void _walk_backward(const void* arguments, Team* team, void* memory) noexcept nogil:
    """Walk back over the whole sequence; a member of a team computes its part of the steps.

    The first and the last phase of a step have the same parts, so the first phase of the next step
    waits for no other member.
    """
    cdef const Pass* f = <const Pass*> arguments
    cdef const Walk* walk = &f.walk
    cdef const Cell* cell = f.cell
    cdef Py_ssize_t P = cell.P, panels = _blocks(P, PANEL), step = -1
    cdef Py_ssize_t i, s, row, state, phase, phases = cell.back_phases, n_before, t_before
    cdef Py_ssize_t T = walk.T
    cdef bint is_cut
    cdef const Series* left  # where a step leaves a part of the state
    cdef char* free = _aligned(memory)
    cdef BackwardStep at
    at.watch = team.watch
    at.sums = <real*> _take(&free, MAX_TILE * sizeof(real))
    at.own = <real*> _take(&free, cell.back_own * sizeof(real))
    cdef real** pointers = <real**> free
    at.gates = pointers
    at.dy = <const real**> (pointers + walk.n)
    at.source = at.dy + walk.n
    at.target = pointers + 3 * walk.n
    pointers += 4 * walk.n
    for state in range(cell.states):
        at.before[state] = <const real**> pointers
        at.after[state] = at.before[state] + walk.n
        at.d[state] = pointers + 2 * walk.n
        pointers += 3 * walk.n
    while _begin_step(team, &step, T, panels):
        at.i = i = walk.T - 1 - step
        at.t = _step(walk, i)
        at.n = _live_at(walk, i)
        _part(team, panels, &at.begin, &at.end)
        at.begin, at.end = at.begin * PANEL, min(P, at.end * PANEL)
        n_before, t_before = _live_at(walk, i - 1), _step(walk, i - 1)
        for s in range(at.n):
            row = _row(walk, s)
            is_cut = _is_cut(walk, i, s)
            at.gates[s] = _at(&f.saved[0], at.t, row)
            at.dy[s] = f.zeros
            if f.dy.data != NULL:
                at.dy[s] = _at(&f.dy, at.t, row)
            for state in range(cell.states):
                left = &f.y if state == 0 else &f.saved[state]
                if is_cut:
                    at.before[state][s] = f.zeros
                elif s < n_before:
                    at.before[state][s] = _at(left, t_before, row)
                else:
                    at.before[state][s] = _at(&f.first[state], 0, row)
                at.after[state][s] = _at(left, at.t, row)
                at.d[state][s] = _at(&f.last[state], 0, row)
        cell.back_phase[0](f, &at, team)
        for phase in range(1, phases):
            _phase_done(team, phases * step + phase)
            _wait_for_all(team, phases * step + phase)
            cell.back_phase[phase](f, &at, team)
        _phase_done(team, phases * (step + 1))
        if team.member == 0 and (step + 1 == walk.T or _may_change(team, step)):
            _wait_for_all(team, phases * (step + 1))


cdef void _output_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that adds dy to the gradient of h and divides the sum by the flags of zoneout."""
    cdef Py_ssize_t s, k, n, row
    cdef const unsigned char* kept
    cdef real* d
    cdef real* past  # [P] the part of the gradient that goes directly to the h before the step
    cdef vec lanes, flags
    for s in range(at.n):
        row = _row(&f.walk, s)
        d, past = at.d[0][s], f.shared + s * f.cell.back_shared
        _add_to(d + at.begin, at.dy[s] + at.begin, at.end - at.begin)
        kept = _flags_at(&f.drawn.kept_h, at.t, row)
        if kept != NULL:
            k = at.begin
            while k < at.end:
                n = at.end - k
                lanes = _load(d + k, n)
                flags = vec_of_flags(kept + k, n)
                _store(past + k, _where(flags, lanes, vec_of(0)), n)
                _store(d + k, _where(flags, vec_of(0), lanes), n)
                k += V
        if f.cell.projection_transposed != NULL:
            memcpy(
                _at(&f.series, at.t, row) + at.begin,
                d + at.begin,
                (at.end - at.begin) * sizeof(real),
            )


cdef void _projection_backward(
    const Pass* f, const BackwardStep* at, const Team* team
) noexcept nogil:
    """The phase that computes the gradient of the hidden units from that of their projection."""
    cdef Py_ssize_t begin, end, s
    _even_part(team, f.cell.H, PANEL, &begin, &end)
    for s in range(at.n):
        at.source[s] = _at(&f.series, at.t, _row(&f.walk, s))
        at.target[s] = _d_hidden(f, at, s) + begin
    _multiply_back(at, f.cell.P, f.cell.projection_transposed, begin, end, False)


cdef inline real* _d_hidden(const Pass* f, const BackwardStep* at, Py_ssize_t s) noexcept nogil:
    """[H] gradient of the hidden units, which a projection follows or not."""
    if f.cell.projection_transposed == NULL:
        return at.d[0][s]
    return f.shared + s * f.cell.back_shared + f.cell.P


cdef void _product_into_state(
    const Pass* f,
    const BackwardStep* at,
    const Series* dz,  # [T, B, K]
    Py_ssize_t K,
    const real* panels,  # packed, [P, K]
    bint accumulate,
) noexcept nogil:
    """This thread's part of the gradient of the h before the step: (+)= panels · dz."""
    cdef Py_ssize_t s
    for s in range(at.n):
        at.source[s] = _at(dz, at.t, _row(&f.walk, s))
        at.target[s] = at.d[0][s] + at.begin
        if at.end - at.begin < f.cell.P:
            _prefetch_row(at.source[s], K)
    _multiply_back(at, K, panels, at.begin, at.end, accumulate)


cdef inline void _multiply_back(
    const BackwardStep* at,
    Py_ssize_t K,
    const real* panels,  # packed, [N, K]
    Py_ssize_t begin,
    Py_ssize_t end,
    bint accumulate,
) noexcept nogil:
    """Rows `begin` to `end` of panels · source, or added to, at the targets of all rows."""
    _multiply(
        at.source,
        at.n,
        K,
        panels + begin * K,
        end - begin,
        at.target,
        NULL,
        accumulate,
        at.sums,
        at.watch,
    )


cdef inline vec _slope_of(
    const Pass* f, const BackwardStep* at, Py_ssize_t s, Py_ssize_t gate, Py_ssize_t unit, vec usual
) noexcept nogil:
    """A gate's slope by its preactivation: the saved one, or `usual` if slopes are not saved."""
    cdef Py_ssize_t place = f.cell.slopes, H = f.cell.H
    if not place:
        return usual
    return _load(_at(&f.saved[place], at.t, _row(&f.walk, s)) + gate * H + unit, H - unit)


cdef void _cut_state(const Pass* f, const BackwardStep* at) noexcept nogil:
    """Set this thread's part of the gradient of h to 0 in rows whose state before is cut."""
    cdef Py_ssize_t s
    if f.walk.resets == NULL:
        return
    for s in range(at.n):
        if _is_cut(&f.walk, at.i, s):
            memset(at.d[0][s] + at.begin, 0, (at.end - at.begin) * sizeof(real))


cdef void _drop_state(const Pass* f, const BackwardStep* at) noexcept nogil:
    """Multiply this thread's part of the gradient of h by the factors of recurrent dropout."""
    cdef Py_ssize_t s
    cdef const real* factors
    for s in range(at.n):
        factors = _at(&f.drawn.factors, 0, _row(&f.walk, s))
        _drop_row(
            at.d[0][s] + at.begin, at.d[0][s] + at.begin, factors + at.begin, at.end - at.begin
        )


cdef inline void _carry_sums(
    const Pass* f, const BackwardStep* at, Py_ssize_t row, Py_ssize_t first, Py_ssize_t size
) noexcept nogil:
    """After the step: move up every level of the row's sums that has FAN parts."""
    cdef Py_ssize_t done = f.later + f.walk.T - at.i, k, levels = _levels(f.steps)
    cdef real* sums = _at(&f.row_sums, 0, row) + first
    for k in range(levels - 1):
        if done % FAN:
            return
        _add_to(sums + f.cell.row_sums, sums, size)
        memset(sums, 0, size * sizeof(real))
        sums += f.cell.row_sums
        done //= FAN


cdef void _add_rows(const Pass* f, Py_ssize_t first, Py_ssize_t size, real* out) noexcept nogil:
    """Set `out` [size] to columns `first` to `first + size` of `row_sums`, summed over the rows."""
    cdef Py_ssize_t left = f.walk.B * _levels(f.steps), columns = f.cell.row_sums, k, n
    cdef const real* sums = <const real*> f.row_sums.data
    cdef real* lost = <real*> sums + left * columns
    cdef const real* rows[CHUNK]
    memset(out, 0, size * sizeof(real))
    memset(lost, 0, size * sizeof(real))
    while left:
        n = min(left, <Py_ssize_t> CHUNK)
        for k in range(n):
            rows[k] = sums + k * columns + first
        _add_columns(rows, 0, size, n, out, lost)
        sums, left = sums + n * columns, left - n
    _end_columns(0, size, out, lost)


cdef inline void _meet_x(const Pass* f, Outer* sum) noexcept nogil:
    """Add to `sum` the gradient of W, from the first row of W on."""
    sum.x, sum.N, sum.dW = f.x, f.cell.inputs, f.gradients[0]


cdef inline void _meet_h(const Pass* f, Outer* sum) noexcept nogil:
    """Add to `sum` the gradient of R, from the first row of R on."""
    sum.y, sum.P, sum.dR = f.y, f.cell.P, f.gradients[1]
    sum.before, sum.h0, sum.factors, sum.zeros = True, f.first[0], f.drawn.factors, f.zeros


cdef void _copy_bias(const Pass* f) noexcept nogil:
    """Copy the gradient of bias_ih to bias_hh: both are the same."""
    if f.cell.has_bias:
        memcpy(f.gradients[3], f.gradients[2], f.cell.gradient_shape[2][0] * sizeof(real))
