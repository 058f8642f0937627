// The acting engine on CUDA. What its calls do is said in engine.h; here every array lies on the device, and a call is
// a launch on the caller's stream: nothing is read back, allocated or waited for, so a CUDA graph can record it.

#pragma once

#include <cstdint>
#include <memory>

#include "rate/engine.h"

namespace rate {

struct CudaEngineMemory {
    const void* parameters;  // the parameter block, float32 or bfloat16
    float* state;
    float* angles;           // CudaEngine::angles() numbers, filled by fill_angles
    float* scratch;          // CudaEngine::scratch() numbers; holds nothing between calls
    int32_t* report;         // two, the second 0 at first
};

class CudaEngine {
public:
    // For the current device. threads: of a block, a multiple of 32 up to 512; 0 lets the engine choose.
    // Throws std::invalid_argument where the shape does not fit the device.
    CudaEngine(const EngineShape& shape, bool bfloat16, int32_t batch, int32_t threads = 0);
    ~CudaEngine();
    CudaEngine(const CudaEngine&) = delete;
    CudaEngine& operator=(const CudaEngine&) = delete;

    int64_t angles() const;
    int64_t scratch() const;
    void fill_angles(float* on_the_host) const;
    void attach(const CudaEngineMemory& memory);  // all of it outlives the engine

    // One launch each, or two where the input has more than some ten thousand numbers. What is refused is written to
    // the report: see refusal. stream: a cudaStream_t of the engine's device.
    void step(const TokenInput& input, const TokenOutput& output, void* stream) const;
    void end_segment(const bool* mask, const TokenInput& input, void* stream) const;
    void reset(const bool* mask, void* stream) const;

    // What the first number of a report, read back by the caller, says of the last step or end_segment.
    static Refusal refusal(int32_t report);

private:
    struct Plans;
    std::unique_ptr<Plans> plans_;
};

}  // namespace rate
