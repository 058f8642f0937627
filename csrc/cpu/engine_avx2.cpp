// The acting engine for avx2; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/engine_kernel.h"

#if defined(__AVX2__) && defined(__FMA__)
#define RATE_LANES 8  // floats per vector
#define RATE_ROWS 6    // rows of a register tile of two vectors each
#include "cpu/engine_passes.h"

const rate::EngineKernel* rate::engine_avx2() {
    static const EngineKernel kernel{"avx2", scratch_floats, run_group, multiply_rows};
    return &kernel;
}
#else
const rate::EngineKernel* rate::engine_avx2() { return nullptr; }
#endif
