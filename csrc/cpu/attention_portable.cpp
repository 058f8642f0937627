// The attention kernel for portable; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/attention_kernel.h"

#if defined(__GNUC__)  // vector extensions of GCC and Clang
#define RATE_LANES 4  // floats per vector
#define RATE_ROWS 4    // rows of a register tile of two vectors each
#include "cpu/attention_passes.h"

const rate::AttentionKernel* rate::attention_portable() {
    static const AttentionKernel kernel{"portable", forward_scratch, backward_scratch, forward, backward};
    return &kernel;
}
#else
const rate::AttentionKernel* rate::attention_portable() { return nullptr; }
#endif
