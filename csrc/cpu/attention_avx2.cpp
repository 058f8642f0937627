// The attention kernel for avx2; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/attention_kernel.h"

#if defined(__AVX2__) && defined(__FMA__)
#define RATE_LANES 8  // floats per vector
#define RATE_ROWS 6    // rows of a register tile of two vectors each
#include "cpu/attention_passes.h"

const rate::AttentionKernel* rate::attention_avx2() {
    static const AttentionKernel kernel{"avx2", forward_scratch, backward_scratch, forward, backward};
    return &kernel;
}
#else
const rate::AttentionKernel* rate::attention_avx2() { return nullptr; }
#endif
