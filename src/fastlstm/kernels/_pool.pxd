cdef struct Job

ctypedef void (*Work)(void* context) noexcept nogil

cdef Job* invite(Work work, void* context, Py_ssize_t helpers) noexcept nogil
cdef void dismiss(Job* job) noexcept nogil
