// The acting engine for avx512; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/engine_kernel.h"

#if defined(__AVX512F__)
#define RATE_LANES 16  // floats per vector
#define RATE_ROWS 8    // rows of a register tile of two vectors each
#include "cpu/engine_passes.h"

const rate::EngineKernel* rate::engine_avx512() {
    static const EngineKernel kernel{"avx512", scratch_floats, run_group, multiply_rows};
    return &kernel;
}
#else
const rate::EngineKernel* rate::engine_avx512() { return nullptr; }
#endif
