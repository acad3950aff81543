# The steps of a walk by a team: which member computes which units, and when a member waits.
#
# The leader begins every step with an order: how many members take part, and where the units are
# cut into parts. Every few steps it measures how long each member worked and moves the cuts, since
# cores differ in speed, and other programs may run on some of them.

cdef enum:
    WINDOW = 6  # steps between two measurements of the members' speed


cdef inline bint _begin_step(
    Team* team, Py_ssize_t* step, Py_ssize_t steps, Py_ssize_t units
) noexcept nogil:
    """Set `step` to the next of `steps` in which this thread has a part; False after the last.

    `step` is the step before; -1 at the start. Where the cuts may change (see `_may_change`), the
    leader calls this only once all members have written what the next step reads.
    """
    if team.lines == NULL:
        step[0] += 1
        return step[0] < steps
    return _lead_step(team, step, steps, units) if team.member == 0 else _follow_step(team, step)


cdef inline void _part(
    const Team* team, Py_ssize_t units, Py_ssize_t* begin, Py_ssize_t* end
) noexcept nogil:
    """This thread's part of the step: units `begin` to `end`."""
    begin[0], end[0] = 0, units
    if team.lines != NULL:
        begin[0], end[0] = team.cuts[team.member], team.cuts[team.member + 1]


cdef inline void _even_part(
    const Team* team, Py_ssize_t count, Py_ssize_t* begin, Py_ssize_t* end
) noexcept nogil:
    """This thread's part of `count` items that are not units: all members have equally many."""
    begin[0] = count * team.member // team.parts
    end[0] = count * (team.member + 1) // team.parts


cdef bint _lead_step(
    Team* team, Py_ssize_t* step, Py_ssize_t steps, Py_ssize_t units
) noexcept nogil:
    step[0] += 1
    if step[0] < steps:
        _give_order(team, step[0], units)
    team.since = TICKS()
    return step[0] < steps


cdef bint _follow_step(Team* team, Py_ssize_t* step) noexcept nogil:
    cdef int64_t order
    cdef Py_ssize_t looks = 0
    while True:
        order = LOAD(team.lines + ORDER)
        if order == OVER:
            return False
        if order // 2 // MOST_PARTS > step[0] + 1 and order // 2 % MOST_PARTS > team.member:
            step[0], team.parts = order // 2 // MOST_PARTS - 1, order // 2 % MOST_PARTS
            team.cuts, team.since = _list(team, order % 2), TICKS()
            return True
        _look_again(&looks)


cdef void _give_order(Team* team, Py_ssize_t step, Py_ssize_t units) noexcept nogil:
    """Begin the step with a part for each member that has joined; a slower one gets fewer units."""
    cdef Py_ssize_t parts = 1 + LOAD(team.lines + JOINED), which = LOAD(team.lines + ORDER) % 2
    cdef Py_ssize_t part
    cdef int64_t* next_cuts = _list(team, 1 - which)
    cdef bint grows = step == 0 or parts > team.parts
    if grows:
        for part in range(parts + 1):
            next_cuts[part] = units * part // parts
    if grows or step >= max(team.looked + WINDOW, team.kept):
        if grows or _balance(team, units, next_cuts):
            which = 1 - which
        team.looked = step
        for part in range(parts):
            _list(team, SEEN)[part] = _line(team, part)[WORK_TICKS]
    team.parts, team.cuts = parts, _list(team, which)
    STORE(team.lines + ORDER, ((step + 1) * MOST_PARTS + parts) * 2 + which)


cdef bint _balance(const Team* team, Py_ssize_t units, int64_t* better) noexcept nogil:
    """Fill `better` with cuts by the members' speeds since the last measurement.

    Returns whether the time of the slowest member would then fall by more than 5 %.
    """
    cdef const int64_t* seen = _list(team, SEEN)
    cdef Py_ssize_t part
    cdef int64_t slowest = 0
    cdef double total = 0, until = 0, slowest_then = 0, ticks
    if team.parts > units:
        return False
    for part in range(team.parts):
        ticks = _line(team, part)[WORK_TICKS] - seen[part]
        if ticks <= 0:
            return False
        slowest = max(slowest, <int64_t> ticks)
        total += (team.cuts[part + 1] - team.cuts[part]) / ticks
    better[0] = 0
    for part in range(team.parts):
        ticks = _line(team, part)[WORK_TICKS] - seen[part]
        until += (team.cuts[part + 1] - team.cuts[part]) / ticks
        better[part + 1] = <int64_t> (units * until / total + 0.5)
        better[part + 1] = min(better[part + 1], units - (team.parts - 1 - part))
        better[part + 1] = max(better[part + 1], better[part] + 1)
        ticks *= better[part + 1] - better[part]
        slowest_then = max(slowest_then, ticks / (team.cuts[part + 1] - team.cuts[part]))
    return slowest_then < 0.95 * slowest


cdef inline bint _may_grow(const Team* team) noexcept nogil:
    """Whether the next step may have more parts than this one."""
    return team.lines != NULL and team.parts < team.members


cdef inline bint _may_change(const Team* team, Py_ssize_t step) noexcept nogil:
    """Whether the step after this one may have other parts. Only the leader may call this."""
    return _may_grow(team) or team.parts > 1 and step + 1 >= team.looked + WINDOW


cdef inline void _phase_done(Team* team, Py_ssize_t phases) noexcept nogil:
    """Tell the other members that this thread has finished `phases` phases of the walk."""
    if team.parts > 1:
        team.at_work += TICKS() - team.since
        _line(team, team.member)[WORK_TICKS] = team.at_work
        STORE(_line(team, team.member) + PHASES, phases)


cdef inline void _wait_for_all(Team* team, Py_ssize_t phases) noexcept nogil:
    """Wait until every member of this step has finished `phases` phases of the walk."""
    cdef Py_ssize_t m
    for m in range(team.parts):
        if m != team.member:
            _wait_for(_line(team, m) + PHASES, phases)
    if team.parts > 1:
        team.since = TICKS()
