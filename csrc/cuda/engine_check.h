// Which call is refused, and why: decided on the device, before anything is changed.
//
// The report is two int32. The first is a key: none, or env * 64 + (kind + 1) * 8 + problem, and the smallest is the
// call's. The second counts the blocks that have finished, and is 0 between launches.

#pragma once

#include "cuda/engine_work.h"

namespace rate {

constexpr int32_t kNoProblem = 0x7f7f7f7f;  // what cudaMemsetAsync can write

__device__ inline int32_t problem_key(int env, Problem problem, int kind) {
    return env * 64 + (kind + 1) * 8 + static_cast<int32_t>(problem);
}

inline Refusal refusal_of(int32_t key) {
    if (key == kNoProblem) return {};
    return {static_cast<Problem>(key % 8), key / 64, key / 8 % 8 - 1};
}

__host__ __device__ inline int observation_numbers(const EngineShape& shape) {
    return shape.observation == Observation::embedded ? shape.d_model
           : shape.observation == Observation::vector ? shape.observation_size
                                                      : 1;
}
// Input numbers of one environment.
__host__ __device__ inline int input_numbers(const EngineShape& shape, bool embedded) {
    if (embedded) return 3 * shape.d_model;
    return 1 + observation_numbers(shape) + (shape.action == Action::continuous ? shape.action_size : 1);
}

__device__ inline const int32_t* counters_of(const EnginePlan& plan, const EngineCall& call, int64_t env) {
    return reinterpret_cast<const int32_t*>(call.state + env * plan.state.stride + plan.state.counters);
}

__device__ inline int32_t problem_of_token(const EngineShape& shape, const TokenInput& input, int env, int64_t count,
                                           int tokens, int number) {
    if (input.embedded) {
        const float value = input.embedded[int64_t{env} * 3 * shape.d_model + number];
        return number / shape.d_model < count && !isfinite(value) ? problem_key(env, Problem::not_finite, 3)
                                                                  : kNoProblem;
    }
    const int observed = observation_numbers(shape);
    const int kind = number == 0 ? 0 : number <= observed ? 1 : 2;
    if ((kind + 3 - tokens % 3) % 3 >= count) return kNoProblem;
    const int64_t* ids = nullptr;
    const float* values = input.returns;
    int64_t at = env, known = 0;
    if (kind == 1 && shape.observation == Observation::discrete) {
        ids = input.observation_ids;
        known = shape.observation_size;
    } else if (kind == 2 && shape.action == Action::discrete) {
        ids = input.action_ids;
        known = shape.action_size + 1;
    } else if (kind == 1) {
        values = input.observations;
        at = int64_t{env} * observed + number - 1;
    } else if (kind == 2) {
        values = input.actions;
        at = int64_t{env} * shape.action_size + number - 1 - observed;
    }
    if (known ? !ids : !values) return problem_key(env, Problem::missing, kind);
    if (known) return ids[at] < 0 || ids[at] >= known ? problem_key(env, Problem::out_of_range, kind) : kNoProblem;
    return isfinite(values[at]) ? kNoProblem : problem_key(env, Problem::not_finite, kind);
}

__device__ inline int32_t problem_of(const EnginePlan& plan, const EngineCall& call, int env, int number) {
    if (call.mask && !call.mask[env]) return kNoProblem;
    const int64_t count = call.input.count[env];
    const int32_t* counters = counters_of(plan, call, env);
    if (count < 0 || count > 3) return problem_key(env, Problem::bad_count, -1);
    if (number == 0) {
        if ((count || call.mask) && !counters[kReady]) return problem_key(env, Problem::not_reset, -1);
        if (counters[kTokens] + count > plan.shape.segment_tokens) return problem_key(env, Problem::too_long, -1);
    }
    return count ? problem_of_token(plan.shape, call.input, env, count, counters[kTokens], number) : kNoProblem;
}

// The smallest key of the numbers first, first + stride, ...; over a whole block, the same for all its threads.
__device__ inline int32_t block_problem(const EnginePlan& plan, const EngineCall& call, int64_t first,
                                        int64_t stride) {
    const int width = input_numbers(plan.shape, call.input.embedded != nullptr);
    int32_t key = kNoProblem;
    for (int64_t i = first; i < int64_t{plan.batch} * width; i += stride) {
        const int env = static_cast<int>(i / width);
        key = min(key, problem_of(plan, call, env, static_cast<int>(i - int64_t{env} * width)));
    }
    for (int step = 16; step; step >>= 1) key = min(key, __shfl_xor_sync(kWholeWarp, key, step));
    int32_t* reduce = reinterpret_cast<int32_t*>(shared_floats() + plan.shared.reduce);
    if (lane_id() == 0) reduce[warp_id()] = key;
    __syncthreads();
    for (int warp = 0; warp < warp_count(); ++warp) key = min(key, reduce[warp]);
    return key;
}

// Where an environment stands after the call.
__device__ inline void count_on(const EnginePlan& plan, const EngineCall& call, int env) {
    int32_t* counters = const_cast<int32_t*>(counters_of(plan, call, env));
    const int32_t count = static_cast<int32_t>(call.input.count[env]);
    if (!call.mask) {
        if (count) counters[kReadDone] = 1;
        counters[kTokens] += count;
    } else if (call.mask[env]) {
        const int rows = 2 * plan.shape.num_memory + counters[kTokens] + count;
        counters[kCached] = min(plan.shape.cache_len, counters[kCached] + rows);
        counters[kTokens] = counters[kReadDone] = 0;
    }
}

}  // namespace rate
