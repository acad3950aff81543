"""What only the processor can tell.

Compiled for the baseline alone: it must run before anything newer is imported, since an illegal
instruction kills the process.
"""

cdef extern from *:
    """
    #if defined(__GNUC__) && defined(__x86_64__)
    static int has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int has_avx512(void) {
        return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    }
    #else
    static int has_avx2(void) { return 0; }
    static int has_avx512(void) { return 0; }
    #endif

    #if defined(__linux__)
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sched.h>
    static int current_core(void) { return sched_getcpu(); }
    #else
    static int current_core(void) { return -1; }
    #endif
    """
    int has_avx2()
    int has_avx512()
    int current_core()


def supported():
    """Names of the builds whose instructions processor and system run, the fastest first."""
    return ("avx512",) * has_avx512() + ("avx2",) * has_avx2() + ("baseline",)


def core():
    """The core that the calling thread is on; -1 where the system does not say."""
    return current_core()
