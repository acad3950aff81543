# Interruption of a call by a signal, such as Ctrl-C.
#
# Only the main thread of Python handles signals. A leader on this thread looks for them from time
# to time; if a handler raises, all threads of the call stop at their next look, wherever they are.

cdef extern from *:
    """
    #define raise_pending() -1
    """
    int raise_pending() except -1  # raises the exception that a handler of a signal has raised

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1  # for loops that hold the interpreter lock

cdef enum:
    LOOK = 1 << 24  # multiply-adds after which a thread looks: 0.2 to 20 ms
    STOPPED = 1 << 30  # value of `Watch.work` once the thread has seen that it is to stop


cdef struct Watch:
    # What a thread knows of the call's interruption by a signal.
    int64_t* stopped  # 1: the call was interrupted, and all its threads are to stop
    Py_ssize_t work  # multiply-adds since the thread last looked
    bint leads  # only the leader looks for signals
    unsigned int mode  # of the caller, for `restore_mode`


cdef inline bint _stops(Watch* watch, Py_ssize_t work) noexcept nogil:
    """Whether the call is to stop; `work` is about the multiply-adds until the next question."""
    watch.work += work
    return watch.work > LOOK and _look(watch)


cdef bint _look(Watch* watch) noexcept nogil:
    if watch.leads and not LOAD(watch.stopped):
        restore_mode(watch.mode)
        if interrupted():
            STORE(watch.stopped, 1)
        flush_subnormals()
    watch.work = STOPPED if LOAD(watch.stopped) else 0
    return watch.work == STOPPED
