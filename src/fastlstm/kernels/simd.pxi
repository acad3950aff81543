# The register type, partial loads and stores, scratch memory.

cdef extern from *:
    """
    #ifdef FASTLSTM_FLOAT64
    typedef double real;
    #else
    typedef float real;
    #endif

    /* Inlined whatever their size. Forcing all inline functions would make the code twice as large,
       since Cython's own are many. */
    #ifdef _MSC_VER
    #define inlined_void __forceinline void
    #else
    #define inlined_void __attribute__((__always_inline__)) void
    #endif

    #if defined(__GNUC__)
    typedef real vec __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));
    #define PREFETCH(address) __builtin_prefetch(address)
    static inline vec vec_of(real x) { return x - (vec){0}; }
    /* Loops over lanes, which become one instruction if they are not unrolled too early. */
    #define EACH_LANE(statement) \
        _Pragma("GCC unroll 1") \
        for (int j = 0; j < (int) (sizeof(vec) / sizeof(real)); j++) statement
    static inline vec vec_min(vec a, vec b) {
        EACH_LANE(a[j] = a[j] < b[j] ? a[j] : b[j]);
        return a;
    }
    static inline vec vec_max(vec a, vec b) {
        EACH_LANE(a[j] = a[j] > b[j] ? a[j] : b[j]);
        return a;
    }
    static inline vec vec_if_below(vec x, vec bound, vec below, vec otherwise) {
        EACH_LANE(below[j] = x[j] < bound[j] ? below[j] : otherwise[j]);
        return below;
    }
    static inline vec vec_load_first(const real *source, int n) {
        vec lanes = {0};
        EACH_LANE(lanes[j] = j < n ? source[j] : 0);
        return lanes;
    }
    static inline vec vec_of_flags(const unsigned char *flags, int n) {
        vec lanes = {0};
        if (n >= (int) (sizeof(vec) / sizeof(real))) EACH_LANE(lanes[j] = flags[j] != 0);
        else EACH_LANE(lanes[j] = j < n ? flags[j] != 0 : 0);
        return lanes;
    }
    /* In pairs at half the distance each time: short, and always the same order. */
    static inline real vec_sum(vec lanes) {
        real sums[sizeof(vec) / sizeof(real)];
        *(vec *) sums = lanes;
        for (int half = (int) (sizeof(vec) / sizeof(real)) / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) sums[j] += sums[j + half];
        return sums[0];
    }
    static inline void vec_store_first(real *target, vec lanes, int n) {
        EACH_LANE(if (j < n) target[j] = lanes[j]);
    }
    #else  /* no vector extensions: one lane, and all of it still compiles */
    typedef real vec;
    #define PREFETCH(address)
    static inline vec vec_of(real x) { return x; }
    static inline vec vec_min(vec a, vec b) { return a < b ? a : b; }
    static inline vec vec_max(vec a, vec b) { return a > b ? a : b; }
    static inline vec vec_if_below(vec x, vec bound, vec below, vec otherwise) {
        return x < bound ? below : otherwise;
    }
    static inline vec vec_load_first(const real *source, int n) { return n > 0 ? *source : 0; }
    static inline vec vec_of_flags(const unsigned char *flags, int n) { return n > 0 && *flags; }
    static inline real vec_sum(vec a) { return a; }
    static inline void vec_store_first(real *target, vec a, int n) { if (n > 0) *target = a; }
    #endif

    enum {
        V = sizeof(vec) / sizeof(real),  /* lanes */
        PANEL = 4 * V,                   /* what one k of one block holds */
        MAX_TILE = TILE * PANEL
    };

    /* Subnormals cost a hundred cycles each on some processors; kernels take them as zero. */
    #if defined(__SSE2__)
    #include <immintrin.h>
    static inline unsigned flush_subnormals(void) {
        unsigned before = _mm_getcsr();
        _mm_setcsr(before | 0x8040);
        return before;
    }
    #define restore_mode(mode) _mm_setcsr(mode)
    #else
    #define flush_subnormals() 0
    #define restore_mode(mode) ((void)(mode))
    #endif
    """
    ctypedef float real
    ctypedef void inlined_void
    ctypedef float vec  # Cython sees a number; C sees a register
    enum:
        V
        PANEL
        TILE
        MAX_TILE
    void PREFETCH(const real* address) nogil
    vec vec_of(real x) nogil
    vec vec_min(vec a, vec b) nogil  # b where one is NaN
    vec vec_max(vec a, vec b) nogil  # b where one is NaN
    vec vec_if_below(vec x, vec bound, vec below, vec otherwise) nogil
    vec vec_load_first(const real* source, int n) nogil  # zeros behind the first n
    vec vec_of_flags(const unsigned char* flags, int n) nogil  # 1 where true; zeros behind n
    real vec_sum(vec lanes) nogil
    void vec_store_first(real* target, vec lanes, int n) nogil
    unsigned int flush_subnormals() nogil  # gives the mode for restore_mode
    void restore_mode(unsigned int mode) nogil


cdef inline vec _load(const real* source, Py_ssize_t n) noexcept nogil:
    """The first n of V lanes; zeros behind."""
    return (<const vec*> source)[0] if n >= V else vec_load_first(source, n)


cdef inline void _store(real* target, vec lanes, Py_ssize_t n) noexcept nogil:
    if n >= V:
        (<vec*> target)[0] = lanes
    else:
        vec_store_first(target, lanes, n)


cdef inline Py_ssize_t _blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    return (n + size - 1) // size


cdef inline Py_ssize_t _padded(Py_ssize_t bytes) noexcept nogil:
    """Rounded up to whole cache lines."""
    return _blocks(bytes, 64) * 64


cdef inline char* _aligned(void* memory) noexcept nogil:
    return <char*> ((<uintptr_t> memory + 63) // 64 * 64)


cdef void* _scratch(Py_ssize_t bytes) except NULL:
    """Memory for `_aligned`; the caller gives it back to PyMem_RawFree."""
    cdef void* memory = PyMem_RawMalloc(bytes + 64)
    if memory == NULL:
        raise MemoryError()
    return memory


cdef _aligned_empty(tuple shape):
    """An array whose data begins on a cache line; panels off it cost a third of the speed."""
    count = int(np.prod(shape))
    store = np.empty(count + 64 // sizeof(real), np.float32 if sizeof(real) == 4 else np.float64)
    start = -store.__array_interface__["data"][0] % 64 // sizeof(real)
    return store[start : start + count].reshape(shape)


cdef int _expect(bint fits, str name) except -1:
    if not fits:
        raise ValueError(f"{name}: its shape does not fit the other arguments")
    return 0
