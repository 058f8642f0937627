// The acting engine on a CPU. What its calls do is said in engine.h.

#pragma once

#include <cstdint>
#include <memory>

#include "rate/engine.h"

namespace rate {

struct EngineKernel;  // csrc/cpu/engine_kernel.h

class CpuEngine {
public:
    // parameters: a block of float32 as engine_parameters.h lays it out; it must outlive the engine, as state must, a
    // block for `batch` environments. kernel: one instruction set's; null takes the best that the processor has.
    CpuEngine(const EngineShape& shape, const float* parameters, int32_t batch, float* state,
              const EngineKernel* kernel = nullptr);
    ~CpuEngine();
    CpuEngine(const CpuEngine&) = delete;
    CpuEngine& operator=(const CpuEngine&) = delete;

    // Both allocate nothing once they have been called with as many threads. Calls from several threads wait for each
    // other.
    Refusal step(const TokenInput& input, const TokenOutput& output, int threads);
    Refusal end_segment(const bool* mask, const TokenInput& input, int threads);
    void reset(const bool* mask);

    static const char* instructions();  // "avx512", "avx2" or "portable"

private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace rate
