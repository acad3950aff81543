"""Threads that sleep until a call needs help.

Design:
    A worker is a system thread that has no Python state: it sleeps, wakes and works without the
    interpreter lock, so no other Python thread can delay it.

    A caller invites workers to a job and then begins the work itself. A worker that wakes while
    the job is open joins it. When the caller has finished its own part, it closes the job and
    waits until the workers that joined no longer need its memory. A worker that wakes later does
    nothing: it costs the call only the release of a lock.

    A job can outlive its call, since an invited worker may not have woken or left yet. `holders`
    counts the references to it, and the last holder frees it.

    A worker that was late, since it had no core, rests: it is not invited for a while.
"""

import os
import threading

from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t
from libc.string cimport memset

include "core/threads/atomics.pxi"

cdef extern from "Python.h":
    int PyErr_CheckSignals()  # not 0: an exception is set

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock
    int WAIT_LOCK
    unsigned long PYTHREAD_INVALID_THREAD_ID
    PyThread_type_lock PyThread_allocate_lock() nogil
    unsigned long PyThread_get_thread_ident() nogil
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
    # Returns the number of cores that the caller may use without the one it runs on, and sets
    # `others` to them; -1 where the system does not tell.
    int other_cores(Cores* others) nogil
    void keep_to(long thread, const Cores* wanted, Cores* present) nogil

cdef enum:
    MOST_WORKERS = 255
    BETWEEN_LOOKS = 150_000_000  # ticks: 30 to 150 ms

cdef int64_t CLOSED = 1 << 32  # added to `Job.came` to close a job; more than all workers


cdef struct Job:
    Work work
    void* context  # argument of `work`; freed with the job
    int64_t came  # number of workers that joined; CLOSED or more: the job is closed to others
    int64_t left  # number of workers that joined and have left
    int64_t holders  # number of references: the caller's, and one for each invited worker


cdef struct Worker:
    # 1: idle. 0: busy. A caller that swaps the 1 for a 0 owns the worker: it may set `job` and
    # release `bell`.
    int64_t asleep
    Job* job  # the job to join after waking
    PyThread_type_lock bell  # held while the worker sleeps; its release wakes the worker
    long thread  # the system's number of the thread; 0 outside Linux
    Cores cores  # the cores that the worker was last restricted to; none before the first time
    bint restricted  # whether a new worker restricts itself to `cores`
    int64_t rest  # ticks until which the worker is not invited


cdef Worker[MOST_WORKERS] workers
cdef int64_t begun = 0  # number of workers started so far, failed starts included
cdef int64_t visits = 0  # number of times that a worker has joined a job
cdef int64_t looked = 0  # ticks at which the main thread last looked for signals
cdef unsigned long main_thread


cdef void _drop(Job* job) noexcept nogil:
    if ADD(&job.holders, -1) == 1:
        PyMem_RawFree(job.context)
        PyMem_RawFree(job)


cdef void _serve(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*> argument
    cdef Cores wanted = worker.cores
    worker.thread = this_thread()
    if worker.restricted:
        memset(&worker.cores, 0, sizeof(Cores))
        keep_to(worker.thread, &wanted, &worker.cores)
    while True:
        if ADD(&worker.job.came, 1) < CLOSED:
            ADD(&visits, 1)
            worker.rest = worker.job.work(worker.job.context)
            ADD(&worker.job.left, 1)
        _drop(worker.job)
        STORE(&worker.asleep, 1)
        PyThread_acquire_lock(worker.bell, WAIT_LOCK)


cdef bint _start_worker(Job* job, const Cores* cores, bint restricted) noexcept nogil:
    cdef int64_t place = ADD(&begun, 1)
    if place >= MOST_WORKERS:
        return False
    workers[place].job, workers[place].bell = job, PyThread_allocate_lock()
    workers[place].cores, workers[place].restricted = cores[0], restricted
    if workers[place].bell == NULL:
        return False
    PyThread_acquire_lock(workers[place].bell, WAIT_LOCK)
    ADD(&job.holders, 1)
    if PyThread_start_new_thread(_serve, &workers[place]) == PYTHREAD_INVALID_THREAD_ID:
        ADD(&job.holders, -1)
        return False
    return True


cdef Job* invite(Work work, void* context, Py_ssize_t helpers) noexcept nogil:
    """Invite up to `helpers` workers to run ``work(context)``; NULL where no worker can join.

    `context` comes from PyMem_RawMalloc. The job owns it, unless this is NULL. `work` returns the
    ticks until which the worker is to rest.
    """
    cdef Job* job
    cdef Py_ssize_t place, most = min(helpers, MOST_WORKERS)
    cdef Cores others
    cdef int free
    if not THREADS or helpers <= 0:
        return NULL
    free = other_cores(&others)
    if free == 0:
        return NULL  # a worker on the caller's only core would not help
    job = <Job*> PyMem_RawMalloc(sizeof(Job))
    if job == NULL:
        return NULL
    job.work, job.context, job.came, job.left, job.holders = work, context, 0, 0, 1
    for place in range(min(LOAD(&begun), MOST_WORKERS)):
        if helpers and EXCHANGE(&workers[place].asleep, 0):
            helpers -= 1
            if workers[place].rest > TICKS():
                STORE(&workers[place].asleep, 1)
                continue
            workers[place].job = job
            ADD(&job.holders, 1)
            # Some systems, mostly virtual ones, wake a thread on the core of the thread that wakes
            # it, even if another core is idle. They move it only at a later tick, milliseconds
            # later. So the worker is kept off the caller's core.
            if free > 0:
                keep_to(workers[place].thread, &others, &workers[place].cores)
            PyThread_release_lock(workers[place].bell)
    while helpers and LOAD(&begun) < most and _start_worker(job, &others, free > 0):
        helpers -= 1
    return job


cdef void dismiss(Job* job, int64_t* ready) noexcept nogil:
    """Close the job to other workers, and wait until as many are `ready` as have joined.

    The workers then need a moment to leave and fall asleep. A call that follows at once finds them
    only after this moment. But nobody waits for a worker that has no core.
    """
    cdef int64_t came = ADD(&job.came, CLOSED)
    cdef Py_ssize_t looks = 0
    _wait_for(ready, came)
    while LOAD(&job.left) < came and looks < PATIENCE // 4:
        _look_again(&looks)
    _drop(job)


def _remember_main_thread():
    global main_thread
    main_thread = threading.main_thread().ident


cdef bint interrupted() noexcept nogil:
    """Whether the handler of a signal has raised; its exception is then set for this thread.

    It may be called at any time, and looks for signals only now and then: meanwhile, other Python
    threads may hold the interpreter lock.
    """
    cdef int64_t now = TICKS()
    if now - LOAD(&looked) < BETWEEN_LOOKS or PyThread_get_thread_ident() != main_thread:
        return False
    STORE(&looked, now)
    with gil:
        return PyErr_CheckSignals() != 0


def visited():
    """Return how many times a worker has joined a call before the call was finished."""
    return LOAD(&visits)


def _forget():
    """Empty the pool: the child of a fork has none of its parent's threads."""
    global begun
    memset(workers, 0, sizeof(workers))
    begun = 0
    _remember_main_thread()


_remember_main_thread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
