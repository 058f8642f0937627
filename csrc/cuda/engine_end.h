// A segment's end: what was written becomes memory, through the gate if there is one, and the cache rolls.

#pragma once

#include "cuda/engine_work.h"

namespace rate {

__device__ inline float activate(Activation activation, float x) {
    switch (activation) {
        case Activation::relu: return fmaxf(x, 0.0f);
        case Activation::leaky_relu: return x > 0 ? x : 0.01f * x;
        case Activation::tanh: return tanhf(x);
        default: return x;
    }
}

// The product's input times a map of the gate, plus its bias, as rows of `to`.
__device__ inline void gate_map(const Work& work, const ParameterMatrix& weight, const ParameterMatrix& bias,
                                int places, float* to) {
    const int d = work.plan.parameters.d;
    const Partial mapped = work.product(matrix_at(work.model, weight), places);
    __syncthreads();
    for_each_column(places, d, [&](int place, int column) {
        to[place * d + column] = mapped(place, column) + work.model[bias.offset + column];
    });
    __syncthreads();
}

// gate(memory, written) into the memory. Tens of rows, once per segment.
__device__ inline void retain(const Work& work, const EngineEnv& env, const float* written) {
    const EngineShape& shape = work.plan.shape;
    const ModelParameters& p = work.plan.parameters.model;
    const int m = shape.num_memory, d = work.plan.parameters.d, chunk = work.plan.chunk_tiles * kTile;
    float* memory = work.memory_of(env);
    float *queries = work.gate, *keys = queries + m * d, *values = keys + m * d;
    for (int first = 0; first < m; first += chunk) {
        const int places = min(chunk, m - first);
        for_each_column(places, d, [&](int place, int column) {
            work.input(place)[column] = memory[(first + place) * d + column];
        });
        __syncthreads();
        gate_map(work, p.gate_query_weight, p.gate_query_bias, places, queries + first * d);
        for_each_column(places, d, [&](int place, int column) {
            work.input(place)[column] = activate(shape.gate_activation, written[(first + place) * d + column]);
        });
        __syncthreads();
        gate_map(work, p.gate_key_weight, p.gate_key_bias, places, keys + first * d);
        gate_map(work, p.gate_value_weight, p.gate_value_bias, places, values + first * d);
    }
    const int d_head = shape.d_model / shape.gate_heads;
    const float scale = rsqrtf(static_cast<float>(d_head));
    for (int first = 0; first < m; first += chunk) {
        const int places = min(chunk, m - first);
        for_each_column(places, d - shape.d_model, [&](int place, int column) {
            work.input(place)[shape.d_model + column] = 0;
        });
        for (int item = warp_id(); item < places * shape.gate_heads; item += warp_count()) {
            const int place = item / shape.gate_heads, column = item % shape.gate_heads * d_head;
            const float* query = queries + (first + place) * d + column;
            float* sum = work.input(place) + column;
#pragma unroll 1
            for (int x = lane_id(); x < d_head; x += 32) sum[x] = 0;
            float most = -INFINITY, total = 0;
#pragma unroll 1
            for (int j = 0; j < m; ++j) {
                float score = 0;
#pragma unroll 1
                for (int x = lane_id(); x < d_head; x += 32) score += query[x] * keys[j * d + column + x];
                score = warp_sum(score) * scale;
                const float now = fmaxf(most, score), kept = expf(most - now), weight = expf(score - now);
#pragma unroll 1
                for (int x = lane_id(); x < d_head; x += 32) {
                    sum[x] = sum[x] * kept + weight * values[j * d + column + x];
                }
                total = total * kept + weight;
                most = now;
            }
#pragma unroll 1
            for (int x = lane_id(); x < d_head; x += 32) sum[x] /= total;
        }
        __syncthreads();
        gate_map(work, p.gate_output_weight, p.gate_output_bias, places, memory + first * d);
    }
}

// In published_gated blocks a cached row passes one norm and a running row two: keys and values of the `fresh` newest
// rows of the cache are made anew.
__device__ inline void project_cache(const Work& work, const EngineEnv& env, int layer, int fresh) {
    const EnginePlan& plan = work.plan;
    const ParameterLayout& p = plan.parameters;
    const Parameters weights = work.layer_weights(layer);
    float* state = work.layer_state(env, layer);
    const int chunk = plan.chunk_tiles * kTile;
    Matrix matrix = matrix_at(weights, p.layer.qkv);
    matrix.at = matrix.at + p.heads;
    matrix.n = 2 * p.heads;
    for (int slot = plan.shape.cache_len - fresh; slot < plan.shape.cache_len; slot += chunk) {
        const int places = min(chunk, plan.shape.cache_len - slot);
        for (int place = warp_id(); place < places; place += warp_count()) {
            normalize(state + plan.state.hidden + int64_t{slot + place} * p.d, work.input(place), plan.shape.d_model,
                      p.d, weights + p.layer.inner_norm_weight.offset, weights + p.layer.inner_norm_bias.offset);
        }
        __syncthreads();
        const Partial projected = work.product(matrix, places);
        __syncthreads();
        for_each_column(places, 2 * p.heads, [&](int place, int column) {
            const int kind = column / p.heads, in_kind = column - kind * p.heads;
            const int head = in_kind / p.head_stride, x = in_kind % p.head_stride;
            const float value = projected(place, column);
            if (kind == 1) {
                state[plan.state.values + value_offset(plan.shape, plan.state, slot + place, head, x)] = value;
            } else if (x < plan.shape.d_head) {
                state[plan.state.keys + key_offset(plan.shape, plan.state, slot + place, head, x)] = value;
            }
        });
        __syncthreads();
    }
}

// Moves the newest rows to the cache's slots: down, `width` slots at a time, so that none is overwritten before it is
// read.
__device__ inline void roll(const Work& work, const EngineEnv& env) {
    const EnginePlan& plan = work.plan;
    const EngineShape& shape = plan.shape;
    const int end = shape.first_write(env.tokens) + shape.num_memory, shift = end - shape.cache_len;
    const int kept = min(shape.cache_len, env.cached + shift), fresh = min(shape.cache_len, shift);
    const int d = plan.parameters.d, hs = plan.parameters.head_stride, heads = shape.num_heads;
    if (shift == 0) return;
    for (int done = 0; done < kept; done += shift) {
        const int width = min(shift, kept - done), to = shape.cache_len - kept + done;
        // Of every layer: keys with slots next to each other, values and hidden rows with columns.
        const int64_t keys = int64_t{heads} * shape.d_head * width, values = int64_t{heads} * width * hs;
        const int64_t each = keys + values + int64_t{width} * d;
        for_each(each * shape.num_layers, [&](int64_t i) {
            float* state = work.layer_state(env, static_cast<int>(i / each));
            int64_t at = i % each;
            if (at < keys) {
                const int slot = to + static_cast<int>(at % width), row = static_cast<int>(at / width);
                const int head = row / shape.d_head, x = row % shape.d_head;
                state[plan.state.keys + key_offset(shape, plan.state, slot, head, x)] =
                    state[plan.state.keys + key_offset(shape, plan.state, slot + shift, head, x)];
                return;
            }
            at -= keys;
            float* moved = state + plan.state.values;
            int64_t stride = hs;
            if (at < values) {
                moved += at / (int64_t{width} * hs) * plan.state.slots * hs + at % (int64_t{width} * hs);
            } else {
                moved = state + plan.state.hidden + (at - values);
                stride = d;
            }
            moved[to * stride] = moved[(to + shift) * stride];
        });
        __syncthreads();
    }
    if (shape.block != Block::published_gated) return;
    for (int layer = 0; layer < shape.num_layers; ++layer) project_cache(work, env, layer, fresh);
}

// The rows of the stream have passed the last layer and the final norm.
__device__ inline void end_segments(const Work& work) {
    const EngineShape& shape = work.plan.shape;
    const int d = work.plan.parameters.d;
    for (int e = 0; e < work.envs; ++e) {
        const EngineEnv& env = work.env(e);
        if (!env.ends) continue;
        const float* written = work.stream + (env.first_tile * kTile + env.rows - shape.num_memory) * d;
        if (shape.num_memory && shape.gate_heads) {
            retain(work, env, written);
        } else {
            float* memory = work.memory_of(env);
            for_each(int64_t{shape.num_memory} * d, [&](int64_t i) { memory[i] = written[i]; });
        }
        if (shape.cache_len) roll(work, env);
        __syncthreads();
    }
}

}  // namespace rate
