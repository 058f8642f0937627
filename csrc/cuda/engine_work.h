// A block's view of a call: its environments, its rows, and the parameters.

#pragma once

#include "cuda/engine_device.h"

namespace rate {

// One call's arguments; everything in it lies on the device.
struct EngineCall {
    const char* model;    // the parameter block
    float* state;         // the state block
    const float* angles;  // [slots / 32][d_model][32]: cos(w slot), then sin(w slot)
    float* scratch;
    int32_t* report;      // see engine_check.h
    TokenInput input;
    TokenOutput output;
    const bool* mask;     // end_segment's; null for step
    int32_t checked;      // the input was checked by a launch before
    int32_t bfloat16;     // the parameters' type; else float32
};

struct Row {
    const EngineEnv* env;
    int slot;    // -1: no row in this place
    int number;  // of a token within its segment; negative: read memory, from `tokens` on: write memory
};

struct Work {
    const EnginePlan& plan;
    const EngineCall& call;
    Parameters model;
    float* stream;  // [tiles * 4][d], all rows' residual stream; in shared or in scratch memory
    float* query;   // [tiles * 4][H hs]
    float* gate;    // scratch memory of the gate
    int tiles;
    int envs;

    __device__ const EngineEnv& env(int i) const {
        return reinterpret_cast<const EngineEnv*>(shared_floats() + plan.shared.envs)[i];
    }
    __device__ const EngineEnv& env_of(int tile) const {
        return env(reinterpret_cast<const int32_t*>(shared_floats() + plan.shared.tile_env)[tile]);
    }
    __device__ Row row(int place) const {
        const EngineEnv& owner = env_of(place / kTile);
        const int in_env = place - owner.first_tile * kTile;
        if (in_env >= owner.rows) return {&owner, -1, 0};
        return {&owner, owner.first_slot + in_env, owner.first_slot + in_env - plan.shape.first_token()};
    }
    __device__ float* state_of(const EngineEnv& owner) const { return call.state + owner.index * plan.state.stride; }
    __device__ float* layer_state(const EngineEnv& owner, int layer) const {
        return state_of(owner) + plan.state.first_layer + layer * plan.state.layer_stride;
    }
    __device__ float* memory_of(const EngineEnv& owner) const { return state_of(owner) + plan.state.memory; }
    __device__ Parameters layer_weights(int layer) const {
        return model + plan.parameters.first_layer + layer * plan.parameters.layer_stride;
    }
    __device__ float* input(int place) const {
        return shared_floats() + plan.shared.input + place * plan.shared.input_stride;
    }
    // The first `places` rows of the input times a matrix.
    __device__ Partial product(const Matrix& matrix, int places, int first_place = 0) const {
        return multiply(matrix, plan.shared.input + first_place * plan.shared.input_stride, plan.shared.input_stride,
                        plan.shared.partial, places);
    }
};

// A parameter as what multiplies from the right.
__device__ inline Matrix matrix_at(Parameters base, const ParameterMatrix& parameter) {
    const int k = parameter.row_groups == 1 ? parameter.rows : parameter.row_groups * parameter.row_step;
    return {base + parameter.offset, k, parameter.stride, parameter.stride};
}

// Calls body(i) for i = 0 .. count - 1, shared among the block's threads.
template <typename Body>
__device__ inline void for_each(int64_t count, const Body& body) {
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) body(i);
}
// The same for (place, column), columns next to each other.
template <typename Body>
__device__ inline void for_each_column(int places, int columns, const Body& body) {
    const unsigned count = static_cast<unsigned>(places * columns);
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
        const unsigned place = i / static_cast<unsigned>(columns);
        body(static_cast<int>(place), static_cast<int>(i - place * static_cast<unsigned>(columns)));
    }
}

// Layer norm by one warp; from and to may be the same row. Every lane reads and writes its own columns lane, lane + 32,
// and so on; columns from d to room become 0.
__device__ inline void normalize(const float* from, float* to, int d, int room, Parameters weight,
                                 Parameters bias) {
    float sum = 0;
#pragma unroll 2
    for (int i = lane_id(); i < d; i += 32) sum += from[i];
    const float mean = warp_sum(sum) / static_cast<float>(d);
    float squares = 0;
#pragma unroll 2
    for (int i = lane_id(); i < d; i += 32) squares += (from[i] - mean) * (from[i] - mean);
    const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(d) + 1e-5f);
#pragma unroll 2
    for (int i = lane_id(); i < room; i += 32) {
        to[i] = i < d ? (from[i] - mean) * scale * weight[i] + bias[i] : 0.0f;
    }
}

}  // namespace rate
