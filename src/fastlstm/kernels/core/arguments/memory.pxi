# Scratch memory, aligned to cache lines.

cdef inline Py_ssize_t _blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    """How many blocks of `size` hold n items: n / size, rounded up."""
    return (n + size - 1) // size


cdef inline Py_ssize_t _padded(Py_ssize_t bytes) noexcept nogil:
    """`bytes`, rounded up to whole cache lines."""
    return _blocks(bytes, 64) * 64


cdef inline char* _aligned(void* memory) noexcept nogil:
    return <char*> ((<uintptr_t> memory + 63) // 64 * 64)


cdef inline char* _take(char** memory, Py_ssize_t bytes) noexcept nogil:
    """The next `bytes` of scratch memory, on a cache line; `memory` moves to the end of them."""
    cdef char* taken = memory[0]
    memory[0] = taken + _padded(bytes)
    return taken


cdef void* _scratch(Py_ssize_t bytes) except NULL:
    """New memory from which `_aligned` leaves `bytes`; the caller frees it by PyMem_RawFree."""
    cdef void* memory = PyMem_RawMalloc(bytes + 64)
    if memory == NULL:
        raise MemoryError(f"expected {bytes} bytes of scratch memory, got none")
    return memory


cdef extern from *:
    """
    /* Bytes. Without the interpreter's lock two calls could take the same memory, and the address
       sanitizer sees no access beyond the end of a part of it: none is kept then. */
    #if defined(Py_GIL_DISABLED) || defined(__SANITIZE_ADDRESS__)
    enum { KEPT = -1 };
    #else
    enum { KEPT = 1048576 };
    #endif
    """
    enum:
        KEPT

cdef void* idle = NULL  # scratch memory of KEPT bytes that waits for the next call


cdef void* _borrow_scratch(Py_ssize_t bytes) except NULL:
    """As `_scratch`, for `_return_scratch` to take back.

    A call that frees all its memory makes the C library return pages to the system, and the page
    faults of the next call can take a third of its time. So up to KEPT bytes are not freed.
    """
    global idle
    if bytes > KEPT:
        return _scratch(bytes)
    if idle == NULL:
        return _scratch(KEPT)
    memory, idle = idle, NULL
    return memory


cdef void _return_scratch(void* memory, Py_ssize_t bytes) noexcept:
    global idle
    if bytes > KEPT or idle != NULL:
        PyMem_RawFree(memory)
    else:
        idle = memory
