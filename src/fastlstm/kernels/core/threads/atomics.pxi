# Atomic operations, a clock and pauses, for threads that wait for one another.

cdef extern from *:
    """
    #include <time.h>
    #if defined(__GNUC__)
    #include <sched.h>
    enum { THREADS = 1 };
    #define LOAD(address) __atomic_load_n(address, __ATOMIC_ACQUIRE)
    #define STORE(address, value) __atomic_store_n(address, value, __ATOMIC_RELEASE)
    #define ADD(address, value) __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL)
    #define EXCHANGE(address, value) __atomic_exchange_n(address, value, __ATOMIC_ACQ_REL)
    #define YIELD() sched_yield()
    #define NAP() nanosleep(&(struct timespec) {0, 1000000}, NULL)
    #else  /* no second thread ever runs */
    enum { THREADS = 0 };
    #define LOAD(address) (*(address))
    #define STORE(address, value) (*(address) = (value))
    #define ADD(address, value) ((*(address) += (value)) - (value))
    #define EXCHANGE(address, value) 0
    #define YIELD()
    #define NAP()
    #endif
    #if defined(__SSE2__)
    #include <immintrin.h>
    #define PAUSE() _mm_pause()
    #define TICKS() ((int64_t) __builtin_ia32_rdtsc())
    #else
    #define PAUSE()
    #if defined(CLOCK_MONOTONIC)
    static inline int64_t nanoseconds(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
    }
    #define TICKS() nanoseconds()
    #else
    #define TICKS() ((int64_t) clock() * (1000000000 / CLOCKS_PER_SEC))
    #endif
    #endif
    """
    enum:
        THREADS
    int64_t LOAD(int64_t* address) nogil
    void STORE(int64_t* address, int64_t value) nogil
    int64_t ADD(int64_t* address, int64_t value) nogil  # returns the old value
    int64_t EXCHANGE(int64_t* address, int64_t value) nogil  # returns the old value
    void YIELD() nogil
    void NAP() nogil  # sleeps for a millisecond
    void PAUSE() nogil
    int64_t TICKS() nogil  # the ticks of a clock, 1 to 5 in a nanosecond

cdef enum:
    PATIENCE = 4096  # number of looks after which a waiting thread yields the processor once


cdef inline void _look_again(Py_ssize_t* looks) noexcept nogil:
    PAUSE()
    looks[0] += 1
    if looks[0] % PATIENCE == 0:
        YIELD()


cdef inline void _wait_for(int64_t* address, int64_t least) noexcept nogil:
    """Spin until the number at `address` is `least` or more."""
    cdef Py_ssize_t looks = 0
    while LOAD(address) < least:
        _look_again(&looks)
