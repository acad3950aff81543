"""Which builds this processor can run.

This module is compiled for the baseline only. It has to run before any build for newer processors
is imported, since an illegal instruction kills the process.
"""

cdef extern from *:
    """
    #if defined(__GNUC__) && defined(__x86_64__)
    static int has_avx2(void) {
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
    static int has_avx512(void) {
        if (FASTLSTM_PAIRS) return has_avx2();
        return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    }
    #else
    static int has_avx2(void) { return 0; }
    static int has_avx512(void) { return 0; }
    #endif
    """
    int has_avx2()
    int has_avx512()


def supported():
    """Return the names of the builds that processor and system can run, the fastest first."""
    return ("avx512",) * has_avx512() + ("avx2",) * has_avx2() + ("baseline",)
