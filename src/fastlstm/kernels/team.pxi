# A team: threads that share every step of one walk, each its part of the units.
#
# The leader is the thread that was called. It takes members in between two steps, when they have
# come, and waits for nobody else; so a helper that comes late, or never, costs nothing.

cdef extern from *:
    """
    #if defined(__GNUC__)
    #include <sched.h>
    enum { TEAMS = 1 };
    #define LOAD(address) __atomic_load_n(address, __ATOMIC_ACQUIRE)
    #define STORE(address, value) __atomic_store_n(address, value, __ATOMIC_RELEASE)
    #define ADD(address, value) __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL)
    #define YIELD() sched_yield()
    #else  /* no member is ever taken in */
    enum { TEAMS = 0 };
    #define LOAD(address) (*(address))
    #define STORE(address, value) (*(address) = (value))
    #define ADD(address, value) 0
    #define YIELD()
    #endif
    #if defined(__SSE2__)
    #define PAUSE() _mm_pause()
    #else
    #define PAUSE()
    #endif
    """
    enum:
        TEAMS
    int64_t LOAD(int64_t* address) nogil
    void STORE(int64_t* address, int64_t value) nogil
    int64_t ADD(int64_t* address, int64_t value) nogil
    void YIELD() nogil
    void PAUSE() nogil

cdef enum:
    LINE = 8  # int64s of a cache line, so that no two threads write to the same one
    PATIENCE = 4096  # looks before the processor is offered to others
    MOST_PARTS = 256


cdef struct Team:
    # lines[0]: how many have come; lines[1]: (steps begun) * MOST_PARTS + parts; lines[2 + m]: how
    # many phases of the walk member m has done. Whoever made the team ends it by writing more than
    # MOST_PARTS to lines[0] and then -1 to lines[1]. NULL for a walk that is not shared.
    int64_t* lines
    Py_ssize_t members  # at most, the leader among them
    Py_ssize_t member  # who this is; 0 leads
    Py_ssize_t parts  # of the step


cdef Team _team(int64_t[:, ::1] lines, invite) except *:
    """The calling thread's place in the team that `lines` (zeros at the start) is shared by.

    Who brings an `invite` leads, and calls it when it is about to begin.
    """
    cdef Team team
    cdef int64_t came
    cdef bint leads = invite is not None
    team.lines, team.members, team.member, team.parts = NULL, 1, 0, 1
    if lines is None or (leads and not TEAMS):
        return team
    _expect(lines.shape[0] >= 4 and lines.shape[1] == LINE, "team")
    team.members = min(lines.shape[0] - 2, <Py_ssize_t> MOST_PARTS - 1)
    team.lines = &lines[0, 0]
    if not leads:
        came = ADD(&lines[0, 0], 1) if TEAMS else team.members
        team.member = came + 1 if came + 1 < team.members else -1  # too many, or too late
    return team


cdef inline void _wait_for(int64_t* address, int64_t least) noexcept nogil:
    cdef Py_ssize_t looks = 0
    while LOAD(address) < least:
        _look_again(&looks)


cdef inline void _look_again(Py_ssize_t* looks) noexcept nogil:
    PAUSE()
    looks[0] += 1
    if looks[0] % PATIENCE == 0:
        YIELD()


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
            team.parts = 1 + min(<Py_ssize_t> LOAD(team.lines), team.members - 1)
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
