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
