/* Probes of one core: how much it computes and how fast it reads. See probes.py. */

#include <stddef.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define SUMS 12 /* more than latency times pipes; with two constants they fit 16 registers */

typedef float float_vector __attribute__((vector_size(WIDTH)));
typedef double double_vector __attribute__((vector_size(WIDTH)));
typedef long long bits __attribute__((vector_size(WIDTH)));

/* `rounds` multiplications and additions into each of SUMS registers; returns how many flops. */
#define DEFINE_MULTIPLY_ADD(real)                                                   \
    double multiply_add_##real(long rounds, real *out)                              \
    {                                                                               \
        real##_vector sums[SUMS] = {0}, factor = {0}, term = {0};                   \
        double flops = 2.0 * SUMS * (WIDTH / sizeof(real)) * rounds;                \
        factor += (real)0.25;                                                       \
        term += (real)1;                                                            \
        for (int k = 0; k < SUMS; k++)                                              \
            sums[k] += (real)k; /* else they are one */                             \
        while (rounds--)                                                            \
            for (int k = 0; k < SUMS; k++)                                          \
                sums[k] = sums[k] * factor + term;                                  \
        for (int k = 1; k < SUMS; k++)                                              \
            sums[0] += sums[k];                                                     \
        *out = sums[0][0];                                                          \
        return flops;                                                               \
    }

DEFINE_MULTIPLY_ADD(float)
DEFINE_MULTIPLY_ADD(double)

static bits read_block(const bits *at)
{
    return ((at[0] | at[1]) | (at[2] | at[3])) | ((at[4] | at[5]) | (at[6] | at[7]));
}

/* Reads `bytes` (a multiple of 8 * WIDTH) `passes` times, every other time from the end, so that
   what the cache still holds is read first; returns how many bytes. */
double read_memory(long passes, const char *memory, size_t bytes, long long *out)
{
    const size_t step = 8 * WIDTH;
    bits seen = {0};
    for (long pass = 0; pass < passes; pass++) {
        for (size_t at = 0; at < bytes; at += step)
            seen |= read_block((const bits *)(memory + (pass % 2 ? bytes - step - at : at)));
        __asm__ volatile("" : : : "memory"); /* memory may have changed: read it again */
    }
    *out = seen[0];
    return (double)bytes * passes;
}
