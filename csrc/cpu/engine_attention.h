// Attention of a few new rows of one environment over the slots they see. Compiled once per instruction set.

#pragma once

#include "cpu/engine_kernel.h"
#include "cpu/engine_matrix.h"

namespace {

constexpr int kTogether = 3;           // rows that share the loads of keys and values: a step's tokens
constexpr int kStep = 2 * kLanes;      // slots scored at once
constexpr float kUnseen = -1e30f;      // its exponential is 0 beside any score

// Rows of one environment and of one kind: all read memory, all tokens or all write memory, in adjacent slots.
struct AttentionRows {
    const float* query;  // [rows][row_stride], at the first head
    float* out;          // [rows][H hs], at the first head
    int64_t query_row;
    int64_t out_row;
    int32_t slot;        // of the first row
    int32_t first;       // slot that all of them see first
    int32_t stops[kTogether];
};

// One head. scores: room for kTogether rows of `slots` floats; queries: for 2 kTogether rows of d_head.
template <int R>
void attend(const rate::EngineModel& model, int layer, int head, const float* keys, const float* values,
            const AttentionRows& rows, float* scores, float* queries) {
    const rate::EngineShape& shape = model.shape;
    const int64_t d_head = shape.d_head, room = model.places.head_stride, slots = model.state.slots;
    const float* content = model.parameters + model.places.model.content_bias.offset + head * room;
    const float* position = model.parameters + model.places.model.position_bias.offset + head * room;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(d_head));
    float* const by_content = queries;
    float* const by_position = queries + R * d_head;
    for (int r = 0; r < R; ++r) {
        const float* q = rows.query + r * rows.query_row + head * room;
        for (int64_t k = 0; k < d_head; ++k) {
            by_content[k * R + r] = (q[k] + content[k]) * scale;
            by_position[k * R + r] = (q[k] + position[k]) * scale;
        }
    }

    const int32_t low = rows.first / kStep * kStep, stop = rows.stops[R - 1];
    const int32_t high = (stop + kStep - 1) / kStep * kStep;
    const float* key = keys + head * slots * d_head;
    const float* table = model.table + (int64_t{layer} * shape.num_heads + head) * d_head * model.columns;
    for (int32_t j = low; j < high; j += kStep) {
        const float* k_at = key + j / rate::kKeyBlock * d_head * rate::kKeyBlock + j % rate::kKeyBlock;
        const float* t_at = table + j - rows.slot + model.origin;
        Vec content_sum[R][2] = {}, position_sum[R][2] = {};
        for (int64_t k = 0; k < d_head; ++k, k_at += rate::kKeyBlock, t_at += model.columns) {
            const Vec k0 = load(k_at), k1 = load(k_at + kLanes);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const float c = by_content[k * R + r], p = by_position[k * R + r];
                content_sum[r][0] += k0 * c;
                content_sum[r][1] += k1 * c;
                position_sum[r][0] += load(t_at - r) * p;
                position_sum[r][1] += load(t_at - r + kLanes) * p;
            }
        }
        for (int r = 0; r < R; ++r) {
            store(scores + r * slots + j, content_sum[r][0] + position_sum[r][0]);
            store(scores + r * slots + j + kLanes, content_sum[r][1] + position_sum[r][1]);
        }
    }

    float inverse[R];
    for (int r = 0; r < R; ++r) {
        float* row = scores + r * slots;
        for (int32_t j = low; j < rows.first; ++j) row[j] = kUnseen;
        for (int32_t j = rows.stops[r]; j < high; ++j) row[j] = kUnseen;
        Vec most = load(row + low);
        for (int32_t j = low + kLanes; j < high; j += kLanes) {
            const Vec v = load(row + j);
            most = v > most ? v : most;
        }
        const float largest = maximum(most);
        Vec sum{};
        for (int32_t j = low; j < high; j += kLanes) {
            const Vec e = exponential(load(row + j) - largest);
            store(row + j, e);
            sum += e;
        }
        inverse[r] = 1.0f / total(sum);
    }

    const float* value = values + head * slots * room;
    for (int64_t column = 0; column < room; column += kLanes) {
        Vec even[R] = {}, odd[R] = {};  // two chains, for each addition waits for the one before
        int32_t j = rows.first;
        for (; j + 1 < stop; j += 2) {
            const Vec v0 = load(value + j * room + column), v1 = load(value + (j + 1) * room + column);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                even[r] += v0 * scores[r * slots + j];
                odd[r] += v1 * scores[r * slots + j + 1];
            }
        }
        if (j < stop) {
            const Vec v = load(value + j * room + column);
            for (int r = 0; r < R; ++r) even[r] += v * scores[r * slots + j];
        }
        for (int r = 0; r < R; ++r) {
            store(rows.out + r * rows.out_row + head * room + column, (even[r] + odd[r]) * inverse[r]);
        }
    }
}

inline void attend_rows(const rate::EngineModel& model, int layer, int head, const float* keys, const float* values,
                        const AttentionRows& rows, int count, float* scores, float* queries) {
    switch (count) {
        case 1: return attend<1>(model, layer, head, keys, values, rows, scores, queries);
        case 2: return attend<2>(model, layer, head, keys, values, rows, scores, queries);
        default: return attend<3>(model, layer, head, keys, values, rows, scores, queries);
    }
}

}  // namespace
