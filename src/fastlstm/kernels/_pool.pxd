from libc.stdint cimport int64_t

cdef struct Job

ctypedef int64_t (*Work)(void* context) noexcept nogil

cdef Job* invite(Work work, void* context, Py_ssize_t helpers) noexcept nogil
cdef void dismiss(Job* job, int64_t* ready) noexcept nogil
cdef bint interrupted() noexcept nogil
