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
    # NULL for one thread alone. Line 0: how many have come, how many pieces were begun. Line 1: the
    # order, ((steps begun) * MOST_PARTS + parts) * 2 + which of two lists of cuts holds, or -1 when
    # all is over. Line 2 + m: how many phases of the walk member m has done, its ticks at work.
    # Then the two lists, and what the leader had seen of those ticks when it looked last.
    int64_t* lines
    Py_ssize_t members  # at most, the leader among them
    Py_ssize_t member  # who this is; 0 leads
    Py_ssize_t parts  # of the step
    const int64_t* cuts  # [parts + 1]: part p of the step is units cuts[p] to cuts[p + 1]
    Py_ssize_t looked  # the step before which the leader looked last
    Py_ssize_t kept  # and before which it may not, since what has been prepared would be lost
    int64_t since  # when this thread began what it does
    int64_t at_work


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
    team.looked = team.kept = team.at_work = 0
    return team


cdef inline Py_ssize_t _team_size(Py_ssize_t members) noexcept nogil:
    """Bytes of its lines."""
    return ((2 + members) * LINE + 2 * (members + 1) + members) * sizeof(int64_t)


cdef inline int64_t* _line(const Team* team, Py_ssize_t member) noexcept nogil:
    return team.lines + (2 + member) * LINE


cdef inline int64_t* _cuts(const Team* team, Py_ssize_t which) noexcept nogil:
    return _line(team, team.members) + which * (team.members + 1)


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
    cdef Py_ssize_t size = 0
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    task.work, task.arguments, task.scratch = work, arguments, _padded(scratch)
    task.members, task.lines = min(threads, <Py_ssize_t> MOST_PARTS - 1), NULL
    if task.members > 1:
        size = _team_size(task.members)
    cdef void* memory = _scratch(task.scratch + 64 + size)
    with nogil:
        if size:
            task.lines = <int64_t*> _aligned(<char*> memory + task.scratch + 64)
            memset(task.lines, 0, size)
            job = invite(_follow, &task, task.members - 1)
        team = _place(&task, 0)
        _take_part(&task, &team, memory)
        if size:
            STORE(task.lines + LINE, -1)
            dismiss(job)
    PyMem_RawFree(memory)
    return 0


cdef inline Py_ssize_t _pieces(const Team* team, Py_ssize_t each, Py_ssize_t most) noexcept nogil:
    """Of a task: several for each member, so that the slower ones do fewer."""
    return 1 if team.lines == NULL else min(each * team.members, most)


cdef inline bint _next_piece(Team* team, Py_ssize_t* piece, Py_ssize_t pieces) noexcept nogil:
    """Go to a piece that nobody has begun, or to the end (False); `piece` is -1 at the start."""
    piece[0] = piece[0] + 1 if team.lines == NULL else ADD(team.lines + 1, 1)
    return piece[0] < pieces
