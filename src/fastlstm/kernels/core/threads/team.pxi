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

include "atomics.pxi"

cdef enum:
    LINE = 8  # int64s in a cache line; places that different threads write are in different lines
    MOST_PARTS = 256  # more than the parts of any step

    # Places in `Team.lines`.
    JOINED = 0  # number of helpers that have joined
    NEXT_PIECE = 1  # number of pieces that have been begun
    ORDER = LINE  # ((steps begun) * MOST_PARTS + parts) * 2 + which list of cuts is valid; or OVER
    MEMBERS = 2 * LINE  # the lines of the members, one each; then the lists of `_list`

    # Places in the line of a member, which only this member writes.
    PHASES = 0  # number of phases of the walk that the member has finished
    WORK_TICKS = 1  # ticks that the member has worked, without its waits

    # Lists of `_list`; 0 and 1 are the two lists of cuts, of which one is valid at a time.
    SEEN = 2  # [members] the WORK_TICKS of each member when the leader last measured its speed

    OVER = -1  # value at ORDER: the task is finished


cdef struct Team:
    int64_t* lines  # what all members read, by the places above; NULL for one thread alone
    Py_ssize_t members  # 1 to MOST_PARTS - 1: the most threads of the team, with the leader
    Py_ssize_t member  # 0 for the leader: the number of this thread in the team
    Py_ssize_t parts  # number of parts of the current step
    const int64_t* cuts  # [parts + 1]: part p of the step is units cuts[p] to cuts[p + 1]
    Py_ssize_t looked  # step before which the leader last measured the speed of the members
    # First step for which nothing is computed ahead yet. The leader moves no cuts before this step,
    # since what is computed ahead fits the present cuts only.
    Py_ssize_t kept
    int64_t since  # ticks at which this thread last began to work after waiting
    int64_t at_work  # ticks that this thread has worked in this walk


ctypedef void (*TeamWork)(const void* arguments, Team* team, void* memory) noexcept nogil


cdef struct Task:
    TeamWork work
    const void* arguments
    Py_ssize_t scratch  # bytes of scratch memory for each member
    int64_t* lines
    Py_ssize_t members


cdef inline Team _place(const Task* task, Py_ssize_t member) noexcept nogil:
    cdef Team team
    team.lines, team.members = task.lines, task.members
    team.member, team.parts = member, 1
    team.looked = team.kept = team.at_work = team.since = 0
    team.cuts = NULL
    return team


cdef inline Py_ssize_t _team_size(Py_ssize_t members) noexcept nogil:
    """Bytes of `lines` for a team of up to `members`."""
    return (MEMBERS + members * LINE + SEEN * (members + 1) + members) * sizeof(int64_t)


cdef inline int64_t* _line(const Team* team, Py_ssize_t member) noexcept nogil:
    """The line that `member` writes."""
    return team.lines + MEMBERS + member * LINE


cdef inline int64_t* _list(const Team* team, Py_ssize_t which) noexcept nogil:
    """A list of cuts [members + 1], 0 or 1; or SEEN."""
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
        return  # the other members then do all the work
    team = _place(task, ADD(task.lines + JOINED, 1) + 1)
    _take_part(task, &team, memory)
    PyMem_RawFree(memory)


cdef int _lead(
    TeamWork work, const void* arguments, Py_ssize_t scratch, Py_ssize_t threads
) except -1:
    """Do the whole task on up to `threads` threads: this one, and helpers that join in time."""
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
            STORE(task.lines + ORDER, OVER)
            dismiss(job)
    PyMem_RawFree(memory)
    return 0


cdef inline Py_ssize_t _pieces(const Team* team, Py_ssize_t each, Py_ssize_t most) noexcept nogil:
    """How many pieces a task has: `each` for each member, so that a slow member does fewer."""
    return 1 if team.lines == NULL else min(each * team.members, most)


cdef inline bint _next_piece(Team* team, Py_ssize_t* piece, Py_ssize_t pieces) noexcept nogil:
    """Set `piece` to one that no member has begun; False after the last. It is -1 at the start."""
    piece[0] = piece[0] + 1 if team.lines == NULL else ADD(team.lines + NEXT_PIECE, 1)
    return piece[0] < pieces
