// The attention kernel for avx512; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/attention_kernel.h"

#if defined(__AVX512F__)
#define RATE_LANES 16  // floats per vector
#define RATE_ROWS 8    // rows of a register tile of two vectors each
#include "cpu/attention_passes.h"

const rate::AttentionKernel* rate::attention_avx512() {
    static const AttentionKernel kernel{"avx512", forward_scratch, backward_scratch, forward, backward};
    return &kernel;
}
#else
const rate::AttentionKernel* rate::attention_avx512() { return nullptr; }
#endif
