"""Threads that sleep until a call wants help.

Design:
    A worker is a thread of the system's that knows nothing of Python: it sleeps, wakes and works
    without the interpreter lock, so that a call's caller is the only one it ever waits for. Whoever
    wants help invites workers to a job and begins; who comes while the job's door is open takes
    part, and the caller, when it has done its own, closes the door and waits for those inside
    alone. A worker that comes late, or never, costs nothing but the bell.

    A job outlives its call where a worker was called that has not come yet; so it is counted who
    holds it. Nothing spins when a call has returned.
"""

import os

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t
from libc.string cimport memset

include "atomics.pxi"

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock
    int WAIT_LOCK
    unsigned long PYTHREAD_INVALID_THREAD_ID
    PyThread_type_lock PyThread_allocate_lock() nogil
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil
    unsigned long PyThread_start_new_thread(void (*)(void*) noexcept nogil, void*) nogil

cdef extern from *:
    """
    #if defined(__linux__)
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    typedef cpu_set_t Cores;
    static long this_thread(void) { return syscall(SYS_gettid); }
    static int other_cores(Cores *others) {
        if (sched_getaffinity(0, sizeof *others, others)) return -1;
        CPU_CLR(sched_getcpu(), others);
        return CPU_COUNT(others);
    }
    static void keep_to(long thread, const Cores *wanted, Cores *present) {
        if (CPU_EQUAL(wanted, present)) return;
        if (!sched_setaffinity(thread, sizeof *wanted, wanted)) *present = *wanted;
    }
    #else
    typedef int Cores;
    static long this_thread(void) { return 0; }
    static int other_cores(Cores *others) { return -1; }
    static void keep_to(long thread, const Cores *wanted, Cores *present) {}
    #endif
    """
    ctypedef int Cores
    long this_thread() nogil
    int other_cores(Cores* others) nogil  # that the caller may use; -1 where that cannot be told
    void keep_to(long thread, const Cores* wanted, Cores* present) nogil

cdef enum:
    MOST_WORKERS = 255

cdef int64_t CLOSED = 1 << 32


cdef struct Job:
    Work work
    void* context
    int64_t came  # workers that have come in by the door; from CLOSED on, none does
    int64_t left  # workers that came in and have gone
    int64_t holders  # the caller and every worker that was called


cdef struct Worker:
    int64_t asleep  # who makes a 0 of this 1 may set the job and ring the bell
    Job* job
    PyThread_type_lock bell  # released to wake it
    long thread
    Cores cores  # that it was last allowed


cdef Worker[MOST_WORKERS] workers
cdef int64_t begun = 0  # workers that were, or are being, started
cdef int64_t visits = 0  # how often one came in


cdef void _drop(Job* job) noexcept nogil:
    if ADD(&job.holders, -1) == 1:
        PyMem_RawFree(job)


cdef void _serve(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*> argument
    worker.thread = this_thread()
    while True:
        if ADD(&worker.job.came, 1) < CLOSED:
            ADD(&visits, 1)
            worker.job.work(worker.job.context)
            ADD(&worker.job.left, 1)
        _drop(worker.job)
        STORE(&worker.asleep, 1)
        PyThread_acquire_lock(worker.bell, WAIT_LOCK)


cdef bint _start_worker(Job* job) noexcept nogil:
    cdef int64_t place = ADD(&begun, 1)
    if place >= MOST_WORKERS:
        return False
    workers[place].job, workers[place].bell = job, PyThread_allocate_lock()
    if workers[place].bell == NULL:
        return False
    PyThread_acquire_lock(workers[place].bell, WAIT_LOCK)
    ADD(&job.holders, 1)
    if PyThread_start_new_thread(_serve, &workers[place]) == PYTHREAD_INVALID_THREAD_ID:
        ADD(&job.holders, -1)
        return False
    return True


cdef Job* invite(Work work, void* context, Py_ssize_t helpers) noexcept nogil:
    """Call up to `helpers` workers to do ``work(context)``; NULL where none can come."""
    cdef Job* job
    cdef Py_ssize_t place, most = min(helpers, MOST_WORKERS)
    cdef Cores others
    cdef int free
    if not THREADS or helpers <= 0:
        return NULL
    free = other_cores(&others)
    if free == 0:
        return NULL  # who shares the caller's only core is no help
    job = <Job*> PyMem_RawMalloc(sizeof(Job))
    if job == NULL:
        return NULL
    job.work, job.context, job.came, job.left, job.holders = work, context, 0, 0, 1
    for place in range(min(LOAD(&begun), MOST_WORKERS)):
        if helpers and EXCHANGE(&workers[place].asleep, 0):
            workers[place].job = job
            ADD(&job.holders, 1)
            # Some systems (virtual ones above all) wake a thread on its waker's core although
            # another is idle, and move it only at a later tick: milliseconds in which it waits.
            if free > 0:
                keep_to(workers[place].thread, &others, &workers[place].cores)
            PyThread_release_lock(workers[place].bell)
            helpers -= 1
    while helpers and LOAD(&begun) < most and _start_worker(job):
        helpers -= 1
    return job


cdef void dismiss(Job* job) noexcept nogil:
    """Let nobody else begin, and wait for those who have."""
    if job == NULL:
        return
    _wait_for(&job.left, ADD(&job.came, CLOSED))
    _drop(job)


cdef void _call(void* function) noexcept with gil:
    (<object> function)()


def share(function, Py_ssize_t threads):
    """Call ``function()`` here and on up to ``threads - 1`` workers, at the same time.

    Returns when all that began are done.
    """
    cdef Job* job = invite(_call, <void*> function, threads - 1)
    try:
        function()
    finally:
        with nogil:
            dismiss(job)


def visited():
    """How often a worker has come in time to take part in a call."""
    return LOAD(&visits)


def _forget():
    """After a fork, no thread of the parent's exists."""
    global begun
    memset(workers, 0, sizeof(workers))
    begun = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
