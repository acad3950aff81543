# The steps of a walk by a team: which member computes which units, and when a member waits.
#
# The leader begins every step with an order: how many members take part, and where the units are
# cut into parts. Every few steps it measures how long each member worked and moves the cuts, since
# cores differ in speed, and other programs may run on some of them.
#
# A member that keeps the leader waiting has lost its core. It finishes the step, then rests, and
# comes back later. So a member costs the others at most a tenth of their time.

cdef enum:
    WINDOW = 6  # steps between two measurements of the members' speed


cdef inline bint _begin_step(
    Team* team, Py_ssize_t* step, Py_ssize_t steps, Py_ssize_t units
) noexcept nogil:
    """Set `step` to the next of `steps` in which this thread has a part; False after the last.

    It is also False once this thread has seen an interruption. `step` is the step before; -1 at the
    start. Where the cuts may change (see `_may_change`), the leader calls this only once all
    members have finished the step before.
    """
    if team.lines == NULL:
        step[0] += 1
        return step[0] < steps and team.watch.work < STOPPED
    return _lead_step(team, step, steps, units) if team.member == 0 else (
        _follow_step(team, step)
    )


cdef inline void _part(
    const Team* team, Py_ssize_t units, Py_ssize_t* begin, Py_ssize_t* end
) noexcept nogil:
    """This thread's part of the step: units `begin` to `end`."""
    begin[0], end[0] = 0, units
    if team.lines != NULL:
        begin[0], end[0] = team.cuts[team.seat], team.cuts[team.seat + 1]


cdef inline void _even_part(
    const Team* team, Py_ssize_t count, Py_ssize_t size, Py_ssize_t* begin, Py_ssize_t* end
) noexcept nogil:
    """This thread's part of `count` items that are not units, in groups of `size`, evenly."""
    cdef Py_ssize_t groups = _blocks(count, size)
    begin[0] = min(groups * team.seat // team.parts * size, count)
    end[0] = min(groups * (team.seat + 1) // team.parts * size, count)


cdef bint _lead_step(
    Team* team, Py_ssize_t* step, Py_ssize_t steps, Py_ssize_t units
) noexcept nogil:
    step[0] += 1
    if step[0] >= steps or LOAD(team.watch.stopped):
        return False
    _give_order(team, step[0], units)
    team.since = TICKS()
    return True


cdef bint _follow_step(Team* team, Py_ssize_t* step) noexcept nogil:
    cdef int64_t order
    cdef const int64_t* cuts = team.cuts  # of the step before; NULL on arrival
    cdef Py_ssize_t looks = 0
    if team.member < 0:
        _join(team)
    while True:
        order = LOAD(team.lines + ORDER)
        if order == OVER:
            return False
        if order // 2 // MOST_PARTS > step[0] + 1 and _take_seat(team, order):
            # A member works on every step between its arrival and its rest. If the leader has given
            # two orders meanwhile, the cuts are the same in both.
            step[0] = step[0] + 1 if cuts != NULL else order // 2 // MOST_PARTS - 1
            team.same, team.since = team.cuts == cuts, TICKS()
            return True
        if not LOAD(_line(team, team.member) + PRESENT):
            _rest(team)
            cuts = NULL
        _look_again(&looks)


cdef bint _take_seat(Team* team, int64_t order) noexcept nogil:
    """Find this helper's seat in a step; False where it has none.

    The leader may be writing the lists for later steps. But it writes the valid list of a step only
    after it has given another order, and after the step if the step has a seat for this helper.
    """
    cdef int64_t* seats = _seats(team, order % 2)
    cdef Py_ssize_t seat, parts = order // 2 % MOST_PARTS
    for seat in range(1, parts):
        if LOAD(seats + seat) == team.member:
            team.seat, team.parts, team.cuts = seat, parts, _cuts(team, order % 2)
            return LOAD(team.lines + ORDER) == order
    return False


cdef void _rest(Team* team) noexcept nogil:
    """Sleep for the time that the leader has set, or until the task is finished; then be back."""
    team.rest = LOAD(_line(team, team.member) + REST)
    while TICKS() < team.rest:
        if LOAD(team.lines + ORDER) == OVER:
            return
        NAP()
    STORE(_line(team, team.member) + PRESENT, 1)
    ADD(team.lines + ARRIVALS, 1)


cdef void _give_order(Team* team, Py_ssize_t step, Py_ssize_t units) noexcept nogil:
    """Begin the step with a part for each member that is present; a slower one gets fewer units."""
    cdef Py_ssize_t parts = team.parts, which = LOAD(team.lines + ORDER) % 2
    cdef Py_ssize_t part
    cdef int64_t* next_cuts = _cuts(team, 1 - which)
    cdef bint changes = step == 0 or team.late or LOAD(team.lines + ARRIVALS) != team.arrivals
    team.same = True
    if changes:
        parts = _give_seats(team, which)
        for part in range(parts + 1):
            next_cuts[part] = units * part // parts
    if changes or _may_balance(team, step):
        if changes or _balance(team, units, next_cuts, which):
            which, team.same = 1 - which, False
        team.looked = step
        for part in range(parts):
            _seen(team)[part] = _line(team, _seats(team, which)[part])[WORK_TICKS]
    team.parts, team.cuts = parts, _cuts(team, which)
    STORE(team.lines + ORDER, ((step + 1) * MOST_PARTS + parts) * 2 + which)


cdef Py_ssize_t _give_seats(Team* team, Py_ssize_t which) noexcept nogil:
    """Fill the list that is not valid with the members that are present; returns their number."""
    cdef int64_t* seats = _seats(team, 1 - which)
    cdef Py_ssize_t parts = 1, member
    team.late, team.arrivals = False, LOAD(team.lines + ARRIVALS)
    STORE(seats, 0)
    for member in range(1, LOAD(team.lines + JOINED) + 1):
        if LOAD(_line(team, member) + PRESENT):
            STORE(seats + parts, member)
            parts += 1
    return parts


cdef bint _balance(
    const Team* team, Py_ssize_t units, int64_t* better, Py_ssize_t which
) noexcept nogil:
    """Fill `better` with cuts by the members' speeds since the last measurement.

    Returns whether the time of the slowest member would then fall by more than 5 %.
    """
    cdef const int64_t* seen = _seen(team)
    cdef const int64_t* seats = _seats(team, which)
    cdef Py_ssize_t part
    cdef int64_t slowest = 0
    cdef double total = 0, until = 0, slowest_then = 0, ticks
    if team.parts > units:
        return False
    for part in range(team.parts):
        ticks = _line(team, seats[part])[WORK_TICKS] - seen[part]
        if ticks <= 0:
            return False
        slowest = max(slowest, <int64_t> ticks)
        total += (team.cuts[part + 1] - team.cuts[part]) / ticks
    better[0] = 0
    for part in range(team.parts):
        ticks = _line(team, seats[part])[WORK_TICKS] - seen[part]
        until += (team.cuts[part + 1] - team.cuts[part]) / ticks
        better[part + 1] = <int64_t> (units * until / total + 0.5)
        better[part + 1] = min(better[part + 1], units - (team.parts - 1 - part))
        better[part + 1] = max(better[part + 1], better[part] + 1)
        ticks *= better[part + 1] - better[part]
        slowest_then = max(slowest_then, ticks / (team.cuts[part + 1] - team.cuts[part]))
    if slowest_then >= 0.95 * slowest:
        return False
    for part in range(team.parts):
        STORE(_seats(team, 1 - which) + part, seats[part])
    return True


cdef inline bint _may_balance(const Team* team, Py_ssize_t step) noexcept nogil:
    """Whether the leader measures the members' speed before the step, and may move the cuts."""
    return step >= max(team.looked + WINDOW, team.kept)


cdef inline bint _may_grow(const Team* team) noexcept nogil:
    """Whether the next step may have more parts than this one."""
    return team.lines != NULL and team.parts < team.members


cdef inline bint _may_change(const Team* team, Py_ssize_t step) noexcept nogil:
    """Whether the step after this one may have other parts, or none. Only for the leader.

    Also after a step with other parts than the one before: a member that has arrived in it may not
    have seen its order yet, and would miss the step.
    """
    return (
        _may_grow(team)
        or team.late
        or not team.same
        or LOAD(team.watch.stopped)
        or team.parts > 1 and _may_balance(team, step + 1)
    )


cdef inline void _phase_done(Team* team, Py_ssize_t phases) noexcept nogil:
    """Tell the other members that this thread has finished `phases` phases of the walk."""
    if team.parts > 1:
        team.worked = TICKS() - team.since
        team.at_work += team.worked
        _line(team, team.member)[WORK_TICKS] = team.at_work
        STORE(_line(team, team.member) + PHASES, phases)


cdef inline void _wait_for_all(Team* team, Py_ssize_t phases) noexcept nogil:
    """Wait until every member of this step has finished `phases` phases of the walk."""
    if team.parts > 1:
        _wait_from(team, 0, phases)


cdef inline void _wait_for_step_before(Team* team, Py_ssize_t phases) noexcept nogil:
    """Wait until the step before is finished, which ends with so many `phases` of the walk.

    The leader has finished it, since it has given the order for this one.
    """
    if team.same and team.parts > 1:
        _wait_from(team, 1, phases)


cdef void _wait_from(Team* team, Py_ssize_t first, Py_ssize_t phases) noexcept nogil:
    """As `_wait_for_all`, for the members from seat `first` on."""
    cdef Py_ssize_t seat, member
    cdef const int64_t* seats = team.cuts + team.members + 1
    for seat in range(first, team.parts):
        if seat == team.seat:
            continue
        member = seats[seat]
        if team.member:
            _wait_for(_line(team, member) + PHASES, phases)
        elif LOAD(_line(team, member) + PHASES) < phases:
            _wait_and_judge(team, member, phases)
    team.since = TICKS()


cdef void _wait_and_judge(Team* team, Py_ssize_t member, Py_ssize_t phases) noexcept nogil:
    """Wait for a member; send it to rest if it is late.

    It is judged by the ticks between looks that follow each other at once: after a longer time
    between two looks, it was the leader that had no core. Its rest is by all ticks, since the
    leader gives its core away while it waits.
    """
    cdef int64_t begun = TICKS(), now = begun, before = begun, waited = 0
    cdef Py_ssize_t looks = 0
    while LOAD(_line(team, member) + PHASES) < phases:
        _look_again(&looks)
        now = TICKS()
        if now - before < SLACK // 4:
            waited += now - before
        before = now
    if waited > team.worked + SLACK and LOAD(_line(team, member) + PRESENT):
        team.late = True
        STORE(_line(team, member) + REST, _rest_after(now - begun))
        STORE(_line(team, member) + PRESENT, 0)
