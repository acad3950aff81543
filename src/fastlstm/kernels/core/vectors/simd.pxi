# The vector type, with partial loads and stores.

cdef extern from *:
    """
    #ifdef FASTLSTM_FLOAT64
    typedef double real;
    #else
    typedef float real;
    #endif

    /* For functions that are inlined at any size. Forcing this for all inline functions would make
       the code twice as large, since Cython's own inline functions are many. */
    #ifdef _MSC_VER
    #define inlined_void __forceinline void
    #define called_void __declspec(noinline) void
    #else
    #define inlined_void __attribute__((__always_inline__)) void
    /* For one copy of a loop, fast even if all its callers are compiled for size. */
    #define called_void __attribute__((__noinline__, __hot__)) void
    #endif

    #if defined(__GNUC__)
    typedef real vec __attribute__((vector_size(VEC_BYTES), aligned(sizeof(real)), may_alias));
    #define PREFETCH(address) __builtin_prefetch(address)
    /* Tests compile vectors of 64 bytes for processors without AVX-512, as pairs of registers. */
    #if VEC_BYTES == 64 && !defined(__AVX512F__)
    #define PAIRS 1
    #else
    #define PAIRS 0
    #endif
    /* Has a compiler load a vector into a register once, rather than at each use. */
    #if defined(__x86_64__) && !PAIRS
    #define KEEP(lanes) __asm__("" : "+v"(lanes))
    #else
    #define KEEP(lanes)
    #endif
    static inline vec vec_of(real x) { return x - (vec){0}; }
    /* A loop over lanes. It becomes one instruction if it is not unrolled too early. */
    #define EACH_LANE(statement) \
        _Pragma("GCC unroll 1") \
        for (int j = 0; j < (int) (sizeof(vec) / sizeof(real)); j++) statement
    /* Whether a compiler makes one instruction of a loop depends on the code around it. Where it
       mattered, instructions of x86 are named. */
    #if defined(__SSE2__)
    #include <immintrin.h>
    #endif
    #if defined(__SSE2__) && !PAIRS
    #define PASTE(width, name, type) _mm##width##_##name##_##type
    #define PASTED(width, name, type) PASTE(width, name, type)
    #if VEC_BYTES == 64
    #define WIDTH 512
    #elif VEC_BYTES == 32
    #define WIDTH 256
    #else
    #define WIDTH
    #endif
    #ifdef FASTLSTM_FLOAT64
    #define each_lane(name) PASTED(WIDTH, name, pd)
    #else
    #define each_lane(name) PASTED(WIDTH, name, ps)
    #endif
    static inline vec vec_min(vec a, vec b) { return (vec) each_lane(min)(a, b); }
    static inline vec vec_max(vec a, vec b) { return (vec) each_lane(max)(a, b); }
    #else
    static inline vec vec_min(vec a, vec b) {
        EACH_LANE(a[j] = a[j] < b[j] ? a[j] : b[j]);
        return a;
    }
    static inline vec vec_max(vec a, vec b) {
        EACH_LANE(a[j] = a[j] > b[j] ? a[j] : b[j]);
        return a;
    }
    #endif
    static inline vec vec_if_below(vec x, vec bound, vec below, vec otherwise) {
        EACH_LANE(below[j] = x[j] < bound[j] ? below[j] : otherwise[j]);
        return below;
    }
    /* Adds the upper half to the lower half until one number is left: always the same order. */
    static inline real vec_sum(vec lanes) {
        real sums[sizeof(vec) / sizeof(real)];
        *(vec *) sums = lanes;
        for (int half = (int) (sizeof(vec) / sizeof(real)) / 2; half > 0; half /= 2)
            for (int j = 0; j < half; j++) sums[j] += sums[j + half];
        return sums[0];
    }
    #if defined(__AVX512BW__) && defined(__AVX512VL__) && VEC_BYTES == 64
    #ifdef FASTLSTM_FLOAT64
    typedef __mmask8 vec_mask;
    #else
    typedef __mmask16 vec_mask;
    #endif
    static inline vec_mask first_lanes(int n) {
        return n >= (int) (sizeof(vec) / sizeof(real)) ? (vec_mask) -1
                                                       : (vec_mask) ((1u << (n > 0 ? n : 0)) - 1);
    }
    static inline vec vec_load_first(const real *source, int n) {
        return (vec) each_lane(maskz_loadu)(first_lanes(n), source);
    }
    static inline vec vec_first(vec lanes, int n) {
        return (vec) each_lane(maskz_mov)(first_lanes(n), lanes);
    }
    static inline vec vec_of_flags(const unsigned char *flags, int n) {
        __m128i bytes = _mm_maskz_loadu_epi8(first_lanes(n), flags);
        return (vec) each_lane(maskz_mov)(_mm_test_epi8_mask(bytes, bytes), each_lane(set1)(1));
    }
    static inline void vec_store_first(real *target, vec lanes, int n) {
        each_lane(mask_storeu)(target, first_lanes(n), lanes);
    }
    #else
    static inline vec vec_load_first(const real *source, int n) {
        vec lanes = {0};
        EACH_LANE(lanes[j] = j < n ? source[j] : 0);
        return lanes;
    }
    static inline vec vec_first(vec lanes, int n) {
        EACH_LANE(lanes[j] = j < n ? lanes[j] : 0);
        return lanes;
    }
    static inline void vec_store_first(real *target, vec lanes, int n) {
        EACH_LANE(if (j < n) target[j] = lanes[j]);
    }
    #if defined(__AVX2__) && VEC_BYTES == 32
    /* The loop below stores in parts what is then loaded at once, and waits for it: 7 % of the time
       of training with zoneout (Zen 4). */
    static inline vec vec_of_all_flags(const unsigned char *flags) {
        __m256i wide, zero = _mm256_setzero_si256();
    #ifdef FASTLSTM_FLOAT64
        int four;
        memcpy(&four, flags, sizeof(four));
        wide = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(four));
        wide = _mm256_cmpgt_epi64(wide, zero);
    #else
        wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) flags));
        wide = _mm256_cmpgt_epi32(wide, zero);
    #endif
        return (vec) _mm256_and_si256(wide, (__m256i) vec_of(1));
    }
    #else
    static inline vec vec_of_all_flags(const unsigned char *flags) {
        vec lanes = {0};
        EACH_LANE(lanes[j] = flags[j] != 0);
        return lanes;
    }
    #endif
    static inline vec vec_of_flags(const unsigned char *flags, int n) {
        vec lanes = {0};
        if (n >= (int) (sizeof(vec) / sizeof(real))) return vec_of_all_flags(flags);
        EACH_LANE(lanes[j] = j < n ? flags[j] != 0 : 0);
        return lanes;
    }
    #endif
    #else  /* no vector extensions: one lane, so that the same code compiles */
    typedef real vec;
    #define PREFETCH(address)
    #define KEEP(lanes)
    static inline vec vec_of(real x) { return x; }
    static inline vec vec_min(vec a, vec b) { return a < b ? a : b; }
    static inline vec vec_max(vec a, vec b) { return a > b ? a : b; }
    static inline vec vec_if_below(vec x, vec bound, vec below, vec otherwise) {
        return x < bound ? below : otherwise;
    }
    static inline vec vec_load_first(const real *source, int n) { return n > 0 ? *source : 0; }
    static inline vec vec_first(vec lanes, int n) { return n > 0 ? lanes : 0; }
    static inline vec vec_of_flags(const unsigned char *flags, int n) { return n > 0 && *flags; }
    static inline real vec_sum(vec a) { return a; }
    static inline void vec_store_first(real *target, vec a, int n) { if (n > 0) *target = a; }
    #endif

    #if defined(__GNUC__) && !defined(__clang__)
    enum { TRANSPOSES = 1 };
    /* Transposes a square of as many rows as a row has lanes: at each size, the upper right and the
       lower left quarter of all squares of twice the size change places. */
    static inline void vec_transpose(vec *rows) {
        enum { LANES = sizeof(vec) / sizeof(real) };
    #ifdef FASTLSTM_FLOAT64
        typedef long long places __attribute__((vector_size(VEC_BYTES)));
    #else
        typedef int places __attribute__((vector_size(VEC_BYTES)));
    #endif
        _Pragma("GCC unroll 4")
        for (int size = LANES / 2; size > 0; size /= 2) {
            places upper = {0}, lower = {0};  /* which lane of two rows each lane comes from */
            _Pragma("GCC unroll 16")
            for (int j = 0; j < LANES; j++) {
                upper[j] = j & size ? j - size + LANES : j;
                lower[j] = j & size ? j + LANES : j + size;
            }
            _Pragma("GCC unroll 16")
            for (int i = 0; i < LANES; i++) {
                if (i & size) continue;
                vec row = rows[i];
                rows[i] = __builtin_shuffle(row, rows[i + size], upper);
                rows[i + size] = __builtin_shuffle(row, rows[i + size], lower);
            }
        }
    }
    #else
    enum { TRANSPOSES = 0 };
    static inline void vec_transpose(vec *rows) { (void) rows; }
    #endif

    enum {
        V = sizeof(vec) / sizeof(real),  /* lanes */
        PANEL = 4 * V,                   /* reals of one k of one block */
        MAX_TILE = TILE * PANEL,         /* reals of the sums of one tile */
        REGISTERS = TILE < 6 ? 16 : 32,
        VECS_OF_LINE = (64 + sizeof(vec) - 1) / sizeof(vec)  /* vectors of a line of the caches */
    };

    /* A subnormal costs a hundred cycles on some processors, so kernels treat it as zero. */
    #if defined(__SSE2__)
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
    ctypedef void called_void
    ctypedef float vec  # Cython sees a number; C sees a register
    enum:
        TRANSPOSES  # whether `vec_transpose` does something
        V
        PANEL
        TILE
        MAX_TILE
        REGISTERS
        VECS_OF_LINE
    void PREFETCH(const real* address) nogil
    void KEEP(vec lanes) nogil
    vec vec_of(real x) nogil
    vec vec_min(vec a, vec b) nogil  # b where a or b is NaN
    vec vec_max(vec a, vec b) nogil  # b where a or b is NaN
    vec vec_if_below(vec x, vec bound, vec below, vec otherwise) nogil
    vec vec_load_first(const real* source, int n) nogil  # zeros after the first n
    vec vec_first(vec lanes, int n) nogil  # zeros after the first n
    vec vec_of_flags(const unsigned char* flags, int n) nogil  # 1 where true; zeros after n
    real vec_sum(vec lanes) nogil
    void vec_transpose(vec* rows) nogil
    void vec_store_first(real* target, vec lanes, int n) nogil
    unsigned int flush_subnormals() nogil  # returns the mode for restore_mode
    void restore_mode(unsigned int mode) nogil


cdef inline vec _load(const real* source, Py_ssize_t n) noexcept nogil:
    """The first n of V lanes, then zeros."""
    return (<const vec*> source)[0] if n >= V else vec_load_first(source, n)


cdef inline void _store(real* target, vec lanes, Py_ssize_t n) noexcept nogil:
    if n >= V:
        (<vec*> target)[0] = lanes
    else:
        vec_store_first(target, lanes, n)
