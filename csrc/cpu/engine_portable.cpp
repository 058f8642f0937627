// The acting engine for portable; CMakeLists.txt sets the compiler's flags for this file.

#include "cpu/engine_kernel.h"

#if defined(__GNUC__)  // vector extensions of GCC and Clang
#define RATE_LANES 4  // floats per vector
#define RATE_ROWS 4    // rows of a register tile of two vectors each
#include "cpu/engine_passes.h"

const rate::EngineKernel* rate::engine_portable() {
    static const EngineKernel kernel{"portable", scratch_floats, run_group, multiply_rows};
    return &kernel;
}
#else
const rate::EngineKernel* rate::engine_portable() { return nullptr; }
#endif
