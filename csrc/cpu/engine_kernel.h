// What one instruction set's build of the acting engine offers to engine.cpp, and what it is given.

#pragma once

#include "rate/engine.h"

namespace rate {

struct EngineModel {
    EngineShape shape;
    ParameterLayout places;
    StateLayout state;
    const float* parameters;
    // r(t) = W e(t) by distance, [layers][H d_head][columns]: the position score of slots i and j reads column
    // j - i + origin. By distance it takes d_head products, in the separable form d_model; and reading a band of
    // distances costs what reading a band of keys does.
    const float* table;
    int64_t columns;
    int32_t origin;
    int32_t rows_at_most;  // that pass the layers together
};

// Environments whose rows pass the layers together.
struct EngineGroup {
    const int32_t* envs;
    int32_t count;
};

struct EngineCall {
    const TokenInput* input;
    const TokenOutput* output;
    const bool* ends;  // [B], or null for a step
    float* state;
};

struct EngineKernel {
    const char* name;
    int64_t (*scratch)(const EngineModel&);  // floats that a thread needs, 64-byte aligned
    void (*run)(const EngineModel&, const EngineCall&, const EngineGroup&, float* scratch);
    // y = x w for x [rows][depth], w [depth][columns], y [rows][columns], columns a multiple of 16
    void (*multiply)(const float* x, int64_t x_row, int64_t rows, int64_t depth, const float* w, int64_t columns,
                     float* y);
};

// Null where the compiler was not asked for the instruction set.
const EngineKernel* engine_avx512();
const EngineKernel* engine_avx2();
const EngineKernel* engine_portable();

}  // namespace rate
