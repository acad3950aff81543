# Gradients of weights: sums of outer products over all rows of all steps.

cdef enum:
    DEPTH = 256  # rows of the batch that are summed before the sums are added to those in memory
    SLAB = 96  # rows of the weight that are packed together; a multiple of every TILE


cdef struct Outer:
    # One pass over dz for the gradients of W, which multiplied x, and R, which multiplied h.
    Walk walk
    Py_ssize_t M
    Py_ssize_t N
    Py_ssize_t P  # 0 without R
    Series dz  # of [M]
    Series x  # of [N]
    Series y  # of [P]
    bint before  # True: pair dz[t] with y[t-1] (h0 at t=0); False: with y[t]
    Series h0
    Series factors  # [B, P]: factors of the h that R multiplied; no data for none
    real* dW  # OUT [M, N]
    real* dR  # OUT [M, P]
    real* db  # OUT [M], or NULL
    const real* zeros  # [P]
    # The steps may come in several calls, the last steps first. Sums are of DEPTH rows of the batch
    # in any case, so that their bits do not depend on the calls. What does not fill a sum waits.
    Py_ssize_t steps  # of all calls
    Py_ssize_t summed  # rows of the batch that earlier calls have taken
    bint ends  # whether this call has the first steps: it completes the gradients
    real* parts  # [levels - 1][M][N + P]: see `_levels`
    real* lost  # [M] what rounding took from the sums in db
    real* waiting  # [depth][M + N + 2P] rows of dz, x, h, factors; unused if one call has all steps


cdef struct OuterRows:
    # Up to DEPTH rows of the batch from any steps, and scratch memory.
    const real** dz  # [depth] of [M]
    const real** x  # [depth] of [N]
    const real** h  # [depth] of [P]
    const real** factors  # [depth] of [P], or NULL
    real* left  # scratch [SLAB][depth]
    real* x_panels  # scratch [⌈N / 4V⌉][depth][4][V]
    real* h_panels  # scratch [⌈P / 4V⌉][depth][4][V]
    real* sums  # [MAX_TILE]
    Watch* watch


cdef struct Level:
    # Sums of the outer products of some rows.
    real* dW  # [M, N]
    real* dR  # [M, P]
    bint fresh  # True: holds no sums yet


cdef void _sum_rows(
    const Outer* f,
    const OuterRows* at,
    Py_ssize_t depth,
    Level* into,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """Add rows of the batch to rows `begin` to `end` of the gradients."""
    cdef Py_ssize_t slab, m, rows = end - begin
    cdef bint fresh = into.fresh, few = f.N < V
    into.fresh = False
    if f.db != NULL:
        _add_columns(at.dz, begin, rows, depth, f.db, f.lost)
    _pack_right(at.h, at.factors, f.P, depth, at.h_panels)
    if fresh and depth == 1:
        _set_outer(at.dz[0] + begin, rows, at.x[0], f.N, into.dW + begin * f.N)
        _set_outer(at.dz[0] + begin, rows, at.h_panels, f.P, into.dR + begin * f.P)
        return
    if few:
        if _stops(at.watch, rows * depth * f.N):
            return
        _add_few_columns(at.dz, begin, end, at.x, f.N, depth, into.dW, fresh)
        if f.P == 0:
            return
    else:
        _pack_right(at.x, NULL, f.N, depth, at.x_panels)
    for slab in range(_blocks(end - begin, SLAB)):
        m = begin + slab * SLAB
        rows = min(end - m, <Py_ssize_t> SLAB)
        if _stops(at.watch, rows * depth * (f.N + f.P)):
            return
        _pack_left(at.dz, m, rows, depth, at.left)
        if not few:
            _add_outer(at.left, rows, at.x_panels, f.N, depth, into.dW + m * f.N, fresh, at.sums)
        _add_outer(at.left, rows, at.h_panels, f.P, depth, into.dR + m * f.P, fresh, at.sums)


cdef void _move_up(
    const Outer* f, Level* level, Py_ssize_t begin, Py_ssize_t end
) noexcept nogil:
    """Add rows `begin` to `end` of the sums in `level` to the next level."""
    cdef Level* upper = level + 1
    if level.fresh:
        return
    _move(upper.dW + begin * f.N, level.dW + begin * f.N, (end - begin) * f.N, upper.fresh)
    _move(upper.dR + begin * f.P, level.dR + begin * f.P, (end - begin) * f.P, upper.fresh)
    level.fresh, upper.fresh = True, False


cdef void _carry(
    const Outer* f,
    Level* level,  # [levels]
    Py_ssize_t levels,
    Py_ssize_t done,
    Py_ssize_t begin,
    Py_ssize_t end,
) noexcept nogil:
    """After `done` parts of the sum: move up every level that has FAN parts."""
    cdef Py_ssize_t k
    for k in range(levels - 1):
        if done % FAN:
            return
        _move_up(f, level + k, begin, end)
        done //= FAN


cdef inline Py_ssize_t _outer_levels(const Outer* f) noexcept nogil:
    return _levels(_blocks(f.walk.n * f.steps, DEPTH))


cdef inline Py_ssize_t _depth(const Outer* f) noexcept nogil:
    return max(min(f.walk.n * f.steps, <Py_ssize_t> DEPTH), <Py_ssize_t> 1)


cdef inline Py_ssize_t _waiting_size(const Outer* f) noexcept nogil:
    """Reals of one row that waits."""
    return f.M + f.N + 2 * f.P


cdef Py_ssize_t _outer_memory(const Outer* f) noexcept nogil:
    """Bytes of the memory that goes from call to call."""
    cdef Py_ssize_t size = (_outer_levels(f) - 1) * f.M * (f.N + f.P) + f.M
    if f.steps > f.walk.T:
        size += _depth(f) * _waiting_size(f)
    return size * sizeof(real)


cdef void _set_memory(Outer* f, void* memory) noexcept nogil:
    f.parts = <real*> _aligned(memory)
    f.lost = f.parts + (_outer_levels(f) - 1) * f.M * (f.N + f.P)
    f.waiting = f.lost + f.M


cdef Py_ssize_t _outer_scratch(const Outer* f) noexcept nogil:
    """Bytes that `_sum_outer` needs."""
    cdef Py_ssize_t columns = (_blocks(f.N, PANEL) + _blocks(f.P, PANEL)) * PANEL
    return (
        ((columns + SLAB) * _depth(f) + MAX_TILE) * sizeof(real)
        + 4 * _depth(f) * sizeof(void*)
    )


cdef void _sum_outer(const void* arguments, Team* team, void* memory) noexcept nogil:
    cdef const Outer* f = <const Outer*> arguments
    cdef Py_ssize_t piece = -1, pieces = _pieces(team, 2, _blocks(f.M, TILE)), M = f.M
    while _next_piece(team, &piece, pieces):
        _sum_some(f, M * piece // pieces, M * (piece + 1) // pieces, memory, team.watch)


cdef inline void _take_row(
    const Outer* f, OuterRows* at, Py_ssize_t count, Py_ssize_t i, Py_ssize_t s
) noexcept nogil:
    """Set place `count` of the pointers to the row at place s of the i-th step."""
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t t = _step(walk, i), row = _row(walk, s)
    at.dz[count] = _at(&f.dz, t, row)
    at.x[count] = _at(&f.x, t, row)
    if f.P and f.before:
        at.h[count] = _previous(walk, i, s, &f.y, &f.h0, f.zeros)
    elif f.P:
        at.h[count] = _at(&f.y, t, row)
    if at.factors != NULL:
        at.factors[count] = _at(&f.factors, 0, row)


cdef void _sum_some(
    const Outer* f, Py_ssize_t begin, Py_ssize_t end, void* memory, Watch* watch
) noexcept nogil:
    """Rows `begin` to `end` of the gradients, over all steps."""
    cdef const Walk* walk = &f.walk
    cdef Py_ssize_t depth = _depth(f), count = f.summed % depth, done = f.summed // depth, i, s, k
    cdef Py_ssize_t levels = _outer_levels(f), left = done
    cdef Level[MOST_LEVELS] level
    cdef OuterRows at
    at.watch = watch
    at.x_panels = <real*> _aligned(memory)
    at.h_panels = at.x_panels + _blocks(f.N, PANEL) * depth * PANEL
    at.sums = at.h_panels + _blocks(f.P, PANEL) * depth * PANEL
    at.dz = <const real**> (at.sums + MAX_TILE)
    at.x = at.dz + depth
    at.h = at.x + depth
    at.factors = at.h + depth if f.factors.data != NULL else NULL
    at.left = <real*> (at.h + 2 * depth)
    if f.db != NULL and not f.summed:
        memset(f.lost + begin, 0, (end - begin) * sizeof(real))
        memset(f.db + begin, 0, (end - begin) * sizeof(real))
    for k in range(levels):
        level[k].dW = f.parts + k * f.M * (f.N + f.P)
        level[k].dR = level[k].dW + f.M * f.N
        level[k].fresh = (left if k == levels - 1 else left % FAN) == 0
        left //= FAN
    level[levels - 1].dW, level[levels - 1].dR = f.dW, f.dR
    for k in range(count):
        at.dz[k] = f.waiting + k * _waiting_size(f)
        at.x[k] = at.dz[k] + f.M
        at.h[k] = at.x[k] + f.N
        if at.factors != NULL:
            at.factors[k] = at.h[k] + f.P
    for i in range(walk.T - 1, -1, -1):
        for s in range(_live_at(walk, i)):
            _take_row(f, &at, count, i, s)
            count += 1
            if count == depth:
                _sum_rows(f, &at, count, &level[0], begin, end)
                count, done = 0, done + 1
                _carry(f, level, levels, done, begin, end)
    if not f.ends:
        return
    if count or not done:
        _sum_rows(f, &at, count, &level[0], begin, end)
    for k in range(levels - 1):
        _move_up(f, &level[k], begin, end)
    if f.db != NULL:
        _end_columns(begin, end - begin, f.db, f.lost)


cdef void _keep_waiting(const Outer* f) noexcept nogil:
    """Copy the last rows, fewer than `depth`, for the next call."""
    cdef Py_ssize_t depth = _depth(f), place = f.summed, first, i, s
    cdef const real* row[4]
    cdef real* to
    cdef OuterRows at
    at.dz, at.x, at.h = &row[0], &row[1], &row[2]
    at.factors = &row[3] if f.factors.data != NULL else NULL
    first = place + _live_rows(&f.walk)
    first -= first % depth
    for i in range(f.walk.T - 1, -1, -1):
        for s in range(_live_at(&f.walk, i)):
            if place >= first:
                _take_row(f, &at, 0, i, s)
                to = f.waiting + place % depth * _waiting_size(f)
                memcpy(to, row[0], f.M * sizeof(real))
                memcpy(to + f.M, row[1], f.N * sizeof(real))
                memcpy(to + f.M + f.N, row[2], f.P * sizeof(real))
                if at.factors != NULL:
                    memcpy(to + f.M + f.N + f.P, row[3], f.P * sizeof(real))
            place += 1


cdef inline Outer _outer(const Walk* walk, Series dz, Py_ssize_t M) noexcept nogil:
    """An `Outer` of dz without a factor, in one call; the caller sets x, or y, or both."""
    cdef Outer f
    memset(&f, 0, sizeof(f))
    f.walk, f.dz, f.M = walk[0], dz, M
    f.steps, f.ends = walk.T, True
    return f


cdef int _lead_sum(Outer* f, Py_ssize_t threads, void** memory) except -1:
    """Compute the gradients on up to `threads` threads; `memory` goes from call to call."""
    if memory[0] == NULL:
        memory[0] = _scratch(_outer_memory(f))
    _set_memory(f, memory[0])
    _lead(_sum_outer, f, _outer_scratch(f), threads)
    if not f.ends:
        _keep_waiting(f)
    return 0


def weight_gradient(dz, x, dW, db=None, /):
    """Set dW [M, N] to Σ dz[k]ᵀ · x[k] for dz [K, M] and x [K, N]; and db [M], if any, to Σ dz."""
    cdef real* of_z = _numbers(dz, 2, "dz")
    cdef real* of_x = _numbers(x, 2, "x")
    cdef real* of_W = _numbers(dW, 2, "dW")
    cdef Py_ssize_t K = _dim(dz, 0), M = _dim(dz, 1), N = _dim(x, 1)
    cdef Walk walk = _whole_walk(1, K, False)
    cdef Outer f = _outer(&walk, _contiguous(of_z, K, M), M)
    cdef void* memory = NULL
    _expect(_dim(x, 0) == K, "x")
    _expect(_dim(dW, 0) == M and _dim(dW, 1) == N and _is_writeable(dW), "dW")
    f.x, f.N, f.dW = _contiguous(of_x, K, N), N, of_W
    if db is not None:
        f.db = _numbers(db, 1, "db")
        _expect(_dim(db, 0) == M and _is_writeable(db), "db")
    try:
        _lead_sum(&f, 1, &memory)
    finally:
        PyMem_RawFree(memory)
