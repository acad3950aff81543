# A team: threads that share one task, by pieces that need nothing of one another, or by the steps
# of a walk, in each of which every thread has its part of the units.
#
# The leader is the thread that was called. Members take part from the moment they come, in a walk
# from the next step on, and nobody waits for one that has not; so a helper that comes late, or
# never, costs nothing.

include "atomics.pxi"

cdef enum:
    LINE = 8  # int64s of a cache line, so that no two threads write to the same one
    MOST_PARTS = 256


cdef struct Team:
    # By their first number: line 0, how many have come; line 1, (steps begun) * MOST_PARTS + parts,
    # and -1 when all is over; line 2 + m, how many phases of the walk member m has done. The second
    # number of line 0: how many pieces were begun. NULL for one thread alone.
    int64_t* lines
    Py_ssize_t members  # at most, the leader among them
    Py_ssize_t member  # who this is; 0 leads
    Py_ssize_t parts  # of the step


ctypedef void (*TeamWork)(const void* arguments, Team* team, void* memory) noexcept nogil


cdef struct Task:
    TeamWork work
    const void* arguments
    Py_ssize_t scratch  # bytes that each member wants
    int64_t* lines
    Py_ssize_t members


cdef inline Team _place(const Task* task, Py_ssize_t member) noexcept nogil:
    cdef Team team
    team.lines, team.members = task.lines, task.members
    team.member, team.parts = member, 1
    return team


cdef void _take_part(const Task* task, Team* team, void* memory) noexcept nogil:
    cdef unsigned int mode = flush_subnormals()
    task.work(task.arguments, team, memory)
    restore_mode(mode)


cdef void _follow(void* context) noexcept nogil:
    cdef const Task* task = <const Task*> context
    cdef Team team
    cdef void* memory = PyMem_RawMalloc(task.scratch + 64)
    if memory == NULL:
        return  # the others do it all
    team = _place(task, ADD(task.lines, 1) + 1)
    _take_part(task, &team, memory)
    PyMem_RawFree(memory)


cdef int _lead(
    TeamWork work, const void* arguments, Py_ssize_t scratch, Py_ssize_t threads
) except -1:
    """All of the task, on as many of `threads` threads as come in time."""
    cdef Task task
    cdef Team team
    cdef Job* job = NULL
    cdef Py_ssize_t lines = 0
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    task.work, task.arguments, task.scratch = work, arguments, _padded(scratch)
    task.members, task.lines = min(threads, <Py_ssize_t> MOST_PARTS - 1), NULL
    if task.members > 1:
        lines = (2 + task.members) * LINE
    cdef void* memory = _scratch(task.scratch + 64 + lines * sizeof(int64_t))
    with nogil:
        if lines:
            task.lines = <int64_t*> _aligned(<char*> memory + task.scratch + 64)
            memset(task.lines, 0, lines * sizeof(int64_t))
            job = invite(_follow, &task, task.members - 1)
        team = _place(&task, 0)
        _take_part(&task, &team, memory)
        if lines:
            STORE(task.lines + LINE, -1)
            dismiss(job)
    PyMem_RawFree(memory)
    return 0


cdef inline bint _next_piece(Team* team, Py_ssize_t* piece, Py_ssize_t pieces) noexcept nogil:
    """Go to a piece that nobody has begun, or to the end (False); `piece` is -1 at the start."""
    piece[0] = piece[0] + 1 if team.lines == NULL else ADD(team.lines + 1, 1)
    return piece[0] < pieces


cdef inline bint _begin_step(Team* team, Py_ssize_t* step, Py_ssize_t steps) noexcept nogil:
    """Go to the next of `steps` that this thread has a part of, or to the end (False).

    `step` is the last one; -1 at the start. The leader has to be sure that what the next step
    reads is there when the number of parts changes; see `_may_grow`.
    """
    cdef int64_t order
    cdef Py_ssize_t looks = 0
    if team.member == 0:
        step[0] += 1
        if team.lines != NULL and step[0] < steps:
            team.parts = 1 + LOAD(team.lines)
            STORE(team.lines + LINE, (step[0] + 1) * MOST_PARTS + team.parts)
        return step[0] < steps
    while True:
        order = LOAD(team.lines + LINE)
        if order < 0:
            return False
        if order // MOST_PARTS > step[0] + 1 and order % MOST_PARTS > team.member:
            step[0], team.parts = order // MOST_PARTS - 1, order % MOST_PARTS
            return True
        _look_again(&looks)


cdef inline bint _may_grow(const Team* team) noexcept nogil:
    """Whether the next step may have more parts than this one."""
    return team.lines != NULL and team.parts < team.members


cdef inline void _phase_done(const Team* team, Py_ssize_t phases) noexcept nogil:
    """Say that this thread has done `phases` of the walk."""
    if team.parts > 1:
        STORE(team.lines + (2 + team.member) * LINE, phases)


cdef inline void _wait_for_all(const Team* team, Py_ssize_t phases) noexcept nogil:
    """Until every part of this step has done `phases` of the walk."""
    cdef Py_ssize_t m
    for m in range(team.parts):
        if m != team.member:
            _wait_for(team.lines + (2 + m) * LINE, phases)
