# Teams: several threads that work on one task.
#
# A team is the set of threads that work on one task. A member is one of these threads. The leader
# is member 0, the thread that made the call. Every other member is a helper from the pool.
#
# A task is divided in one of two ways: into pieces, which do not depend on one another, or, for a
# walk through time, into steps. Each step of a walk is divided into parts: every member computes
# some of the units.
#
# A helper works from the moment it joins the team; in a walk, from the next step on. No member
# waits for a helper that has not joined, so a helper that joins late, or never, costs nothing.
#
# Nor does a call wait for a helper at its end. After joining, a helper touches the caller's memory
# only in a step whose order names it, or in a piece that it has begun, and the leader waits until
# these are finished. All else that a helper touches belongs to the job: the task and its lines.

include "atomics.pxi"

cdef enum:
    LINE = 8  # int64s in a cache line; places that different threads write are in different lines
    MOST_PARTS = 256  # more than the parts of any step

    # Places in `Team.lines`.
    JOINED = 0  # number of helpers that have joined
    ARRIVALS = 1  # number of times that a helper has joined or come back from its rest
    READY = 2  # number of helpers that need no more of the caller's memory to join
    NEXT_PIECE = 3  # number of pieces that have been begun
    FINISHED = 4  # number of pieces that have been finished
    LAST_CALL = 5  # ticks until which a helper may finish its last piece; 0 before it is known
    # ((steps begun) * MOST_PARTS + parts) * 2 + which list of seats is valid; or OVER
    ORDER = LINE
    MEMBERS = 2 * LINE  # the lines of the members, one each; then the lists of `_cuts`

    # Places in the line of a member.
    PHASES = 0  # number of phases of the walk that the member has finished
    WORK_TICKS = 1  # ticks that the member has worked, without its waits
    PRESENT = 2  # the member writes 1 where this is 0; the leader writes 0 to send it to rest
    REST = 3  # ticks at which the member may come back; the leader writes it before the 0

    OVER = -1  # value at ORDER: the task is finished

    # Ticks that a helper may be late, besides the time of the work it is waited for: 40 to 200 µs.
    # No processor takes so long to do the same work, so the helper has no core at the moment.
    SLACK = 200_000
    REST_FOR = 10  # a late helper rests for so many times the ticks that it has cost
    LONGEST_REST = 1_000_000_000  # ticks


cdef struct Team:
    int64_t* lines  # what all members read, by the places above; NULL for one thread alone
    Py_ssize_t members  # 1 to MOST_PARTS - 1: the most threads of the team, with the leader
    Py_ssize_t member  # the number of this thread; 0 for the leader, -1 before a helper has joined
    Py_ssize_t parts  # number of parts of the current step
    Py_ssize_t seat  # the part that this thread computes
    const int64_t* cuts  # [parts + 1]: part p of the step is units cuts[p] to cuts[p + 1]
    int64_t arrivals  # at the last change of seats
    bint same  # True: the step before had the same parts, and other members may be at it still
    bint late  # True: the leader has sent a member of this step to rest
    Py_ssize_t looked  # step before which the leader last measured the speed of the members
    # First step for which nothing is computed ahead yet. The leader moves no cuts before this step,
    # since what is computed ahead fits the present cuts only.
    Py_ssize_t kept
    int64_t since  # ticks at which this thread last began to work after waiting
    int64_t worked  # ticks of the last phase, or of the longest piece
    int64_t at_work  # ticks that this thread has worked in this walk
    int64_t rest  # ticks until which this helper rests
    Watch* watch


ctypedef void (*TeamWork)(const void* arguments, Team* team, void* memory) noexcept nogil


cdef struct Task:
    TeamWork work
    const void* arguments
    Py_ssize_t scratch  # bytes of scratch memory for each member
    int64_t* lines
    Py_ssize_t members
    int64_t stopped


cdef inline Team _alone(Watch* watch) noexcept nogil:
    """A team of one thread."""
    cdef Team team
    memset(&team, 0, sizeof(team))
    team.members = team.parts = 1
    team.watch = watch
    return team


cdef inline Py_ssize_t _team_size(Py_ssize_t members) noexcept nogil:
    """Bytes of `lines` for a team of up to `members`."""
    return (MEMBERS + members * LINE + 2 * (2 * members + 1) + members) * sizeof(int64_t)


cdef inline int64_t* _line(const Team* team, Py_ssize_t member) noexcept nogil:
    return team.lines + MEMBERS + member * LINE


cdef inline int64_t* _cuts(const Team* team, Py_ssize_t which) noexcept nogil:
    """One of two lists of cuts [members + 1], of which one is valid at a time."""
    return _line(team, team.members) + which * (2 * team.members + 1)


cdef inline int64_t* _seats(const Team* team, Py_ssize_t which) noexcept nogil:
    """[members] the member in each seat, for the cuts of the same list."""
    return _cuts(team, which) + team.members + 1


cdef inline int64_t* _seen(const Team* team) noexcept nogil:
    """[members] the WORK_TICKS by seat when the leader last measured the speed."""
    return _cuts(team, 2)


cdef int64_t _take_part(Task* task, Py_ssize_t member, void* memory) noexcept nogil:
    """Work on the task; returns the ticks until which this thread is to rest."""
    cdef Watch watch
    cdef Team team = _alone(&watch)
    watch.stopped, watch.work, watch.leads = &task.stopped, 0, member == 0
    team.lines, team.members, team.member = task.lines, task.members, member
    watch.mode = flush_subnormals()
    task.work(task.arguments, &team, memory)
    restore_mode(watch.mode)
    return team.rest


cdef int64_t _follow(void* context) noexcept nogil:
    cdef Task* task = <Task*> context
    cdef void* memory = PyMem_RawMalloc(task.scratch + 64)
    cdef int64_t rest
    if memory == NULL:
        ADD(task.lines + READY, 1)
        return 0  # the other members then do all the work
    rest = _take_part(task, -1, memory)
    PyMem_RawFree(memory)
    return rest


cdef int _lead(
    TeamWork work, const void* arguments, Py_ssize_t scratch, Py_ssize_t threads
) except -1:
    """Do the whole task on up to `threads` threads: this one, and helpers that join in time."""
    cdef Task alone
    cdef Task* task = &alone
    cdef Job* job = NULL
    cdef Py_ssize_t size
    cdef int64_t stopped
    cdef Py_ssize_t members = min(threads, <Py_ssize_t> MOST_PARTS - 1)
    cdef void* memory = _borrow_scratch(scratch)
    if members > 1:
        size = sizeof(Task) + 64 + _team_size(members)
        task = <Task*> PyMem_RawCalloc(1, size)
        if task == NULL:
            task, members = &alone, 1
    task.work, task.arguments, task.scratch, task.stopped = work, arguments, scratch, 0
    task.members, task.lines = members, NULL
    if members > 1:
        task.lines = <int64_t*> _aligned(task + 1)
    with nogil:
        if members > 1:
            job = invite(_follow, task, members - 1)
        _take_part(task, 0, memory)
        stopped = task.stopped
        if job != NULL:
            STORE(task.lines + ORDER, OVER)
            dismiss(job, task.lines + READY)
        elif members > 1:
            PyMem_RawFree(task)
    _return_scratch(memory, scratch)
    if stopped:
        raise_pending()
    return 0


cdef void _join(Team* team) noexcept nogil:
    """Become a member; before this, the leader waits for nothing of this helper but this."""
    team.member = ADD(team.lines + JOINED, 1) + 1
    STORE(_line(team, team.member) + PRESENT, 1)
    ADD(team.lines + ARRIVALS, 1)
    ADD(team.lines + READY, 1)


cdef inline int64_t _rest_after(int64_t lost) noexcept nogil:
    """Ticks until which a helper rests that has cost the others `lost` ticks."""
    return TICKS() + min(REST_FOR * lost, <int64_t> LONGEST_REST)


cdef inline Py_ssize_t _pieces(const Team* team, Py_ssize_t each, Py_ssize_t most) noexcept nogil:
    """How many pieces a task has: `each` for each member, so that a slow member does fewer."""
    return 1 if team.lines == NULL else min(each * team.members, most)


cdef inline bint _next_piece(Team* team, Py_ssize_t* piece, Py_ssize_t pieces) noexcept nogil:
    """Set `piece` to one that no member has begun; False after the last. It is -1 at the start.

    For the leader, all pieces are finished after the last.
    """
    if team.lines == NULL:
        piece[0] += 1
        return piece[0] < pieces
    return _share_piece(team, piece, pieces)


cdef bint _share_piece(Team* team, Py_ssize_t* piece, Py_ssize_t pieces) noexcept nogil:
    cdef int64_t last_call, now = TICKS()
    if team.member < 0:
        _join(team)
    if piece[0] >= 0:
        team.worked = max(team.worked, now - team.since)
        last_call = LOAD(team.lines + LAST_CALL)
        if last_call and now > last_call + SLACK:
            team.rest = _rest_after(now - last_call)
        ADD(team.lines + FINISHED, 1)
    piece[0], team.since = ADD(team.lines + NEXT_PIECE, 1), now
    if piece[0] >= pieces and team.member == 0:
        STORE(team.lines + LAST_CALL, now + team.worked)
        _wait_for(team.lines + FINISHED, pieces)
    return piece[0] < pieces
