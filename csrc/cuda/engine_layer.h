// One layer over all rows of a block, chunk by chunk: first keys, values and queries of every chunk, then the rest.

#pragma once

#include "cuda/engine_attention.h"

namespace rate {

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Norms the rows of a stage into the product's input; a warp per row. `second` is a second norm on top, or null.
__device__ inline void norm_input(const Work& work, int first_place, int places, Parameters base,
                                  const ParameterMatrix* weight, const ParameterMatrix* bias,
                                  const ParameterMatrix* second_weight, const ParameterMatrix* second_bias) {
    const int d = work.plan.shape.d_model, room = work.plan.parameters.d;
    for (int place = warp_id(); place < places; place += warp_count()) {
        const float* from = work.stream + (first_place + place) * room;
        float* to = work.input(place);
        if (weight) {
            normalize(from, to, d, room, base + weight->offset, base + bias->offset);
            if (second_weight) normalize(to, to, d, room, base + second_weight->offset, base + second_bias->offset);
        } else {
#pragma unroll 1
            for (int i = lane_id(); i < room; i += 32) to[i] = from[i];
        }
    }
}

// Norms rows of the stream where they stand.
__device__ inline void norm_stream(const Work& work, int first_place, int places, Parameters weight,
                                   Parameters bias) {
    const int room = work.plan.parameters.d;
    for (int place = warp_id(); place < places; place += warp_count()) {
        float* row = work.stream + (first_place + place) * room;
        normalize(row, row, work.plan.shape.d_model, room, weight, bias);
    }
}

// Keys, values, queries and, with a cache, hidden rows of one chunk.
__device__ inline void project(const Work& work, int layer, int first_place, int places) {
    const EnginePlan& plan = work.plan;
    const ParameterLayout& p = plan.parameters;
    const EngineShape& shape = plan.shape;
    const Parameters weights = work.layer_weights(layer);
    const bool normed = shape.block != Block::published, twice = shape.block == Block::published_gated;
    norm_input(work, first_place, places, weights, normed ? &p.layer.attention_norm_weight : nullptr,
               &p.layer.attention_norm_bias, twice ? &p.layer.inner_norm_weight : nullptr, &p.layer.inner_norm_bias);
    if (shape.cache_len) {
        for_each_column(places, p.d, [&](int place, int column) {
            const Row row = work.row(first_place + place);
            if (row.slot < 0) return;
            work.layer_state(*row.env, layer)[plan.state.hidden + int64_t{row.slot} * p.d + column] =
                work.stream[(first_place + place) * p.d + column];
        });
    }
    __syncthreads();
    const Partial projected = work.product(matrix_at(weights, p.layer.qkv), places);
    __syncthreads();
    for_each_column(places, 3 * p.heads, [&](int place, int column) {
        const float value = projected(place, column);
        const int kind = column / p.heads, in_kind = column - kind * p.heads;
        if (kind == 0) {
            work.query[(first_place + place) * p.heads + in_kind] = value;
            return;
        }
        const Row row = work.row(first_place + place);
        const int head = in_kind / p.head_stride, x = in_kind - head * p.head_stride;
        if (row.slot < 0) return;
        float* to = work.layer_state(*row.env, layer);
        if (kind == 2) {
            to[plan.state.values + value_offset(shape, plan.state, row.slot, head, x)] = value;
        } else if (x < shape.d_head) {
            to[plan.state.keys + key_offset(shape, plan.state, row.slot, head, x)] = value;
        }
    });
}

struct UnitParameters {
    const ParameterMatrix &update, &stream, &reset, &bias;
};

// GTrXL's gated recurrent unit on a chunk: the update is the product's input, the result replaces the stream.
__device__ inline void gated_unit(const Work& work, Parameters base, const UnitParameters& unit,
                                  int first_place, int places) {
    const int d = work.plan.parameters.d;
    float* kept = shared_floats() + work.plan.shared.unit;  // [places][3 d]: W_r y, then W_z y or z, then W_g y
    float* stream = work.stream + first_place * d;
    const Partial from_update = work.product(matrix_at(base, unit.update), places);
    __syncthreads();
    for_each_column(places, 3 * d,
                    [&](int place, int column) { kept[place * 3 * d + column] = from_update(place, column); });
    for_each_column(places, d, [&](int place, int column) { work.input(place)[column] = stream[place * d + column]; });
    __syncthreads();
    const Partial from_stream = work.product(matrix_at(base, unit.stream), places);
    __syncthreads();
    for_each_column(places, d, [&](int place, int column) {
        float* mine = kept + place * 3 * d + column;
        const float reset = sigmoid(mine[0] + from_stream(place, column));
        mine[d] = sigmoid(mine[d] + from_stream(place, d + column) - base[unit.bias.offset + column]);
        work.input(place)[column] = reset * stream[place * d + column];
    });
    __syncthreads();
    const Partial from_reset = work.product(matrix_at(base, unit.reset), places);
    __syncthreads();
    for_each_column(places, d, [&](int place, int column) {
        const float* mine = kept + place * 3 * d + column;
        float& x = stream[place * d + column];
        x += mine[d] * (tanhf(mine[2 * d] + from_reset(place, column)) - x);
    });
}

// What attention gave, through the output map, into the stream.
__device__ inline void add_attention(const Work& work, int layer, int first_place, int places) {
    const EngineShape& shape = work.plan.shape;
    const LayerParameters& p = work.plan.parameters.layer;
    const int d = work.plan.parameters.d;
    const Parameters weights = work.layer_weights(layer);
    float* stream = work.stream + first_place * d;
    const Partial attended = work.product(matrix_at(weights, p.output), places);
    __syncthreads();
    if (!shape.gated) {
        const float old = shape.block == Block::published ? 2.0f : 1.0f;  // the published residual comes twice
        for_each_column(places, d, [&](int place, int column) {
            float& x = stream[place * d + column];
            x = old * x + attended(place, column);
        });
        __syncthreads();
        if (shape.block == Block::published) {
            norm_stream(work, first_place, places, weights + p.attention_norm_weight.offset,
                        weights + p.attention_norm_bias.offset);
        }
        return;
    }
    if (shape.block == Block::published_gated) {
        for (int place = warp_id(); place < places; place += warp_count()) {
            float* update = work.input(place);
            normalize(stream + place * d, update, shape.d_model, d, weights + p.attention_norm_weight.offset,
                      weights + p.attention_norm_bias.offset);
#pragma unroll 1
            for (int i = lane_id(); i < d; i += 32) update[i] = fmaxf(update[i] + attended(place, i), 0.0f);
        }
    } else {
        for_each_column(places, d, [&](int place, int column) {
            work.input(place)[column] = fmaxf(attended(place, column), 0.0f);
        });
    }
    __syncthreads();
    gated_unit(work, weights,
               {p.attention_from_update, p.attention_from_stream, p.attention_from_reset, p.attention_gate_bias},
               first_place, places);
}

__device__ inline void feed_forward(const Work& work, int layer, int first_place, int places) {
    const EngineShape& shape = work.plan.shape;
    const LayerParameters& p = work.plan.parameters.layer;
    const int d = work.plan.parameters.d;
    const Parameters weights = work.layer_weights(layer);
    float* stream = work.stream + first_place * d;
    norm_input(work, first_place, places, weights,
                       shape.block == Block::published ? nullptr : &p.feed_forward_norm_weight,
                       &p.feed_forward_norm_bias, nullptr, nullptr);
    __syncthreads();
    const Partial inner = work.product(matrix_at(weights, p.feed_forward_in), places);
    __syncthreads();
    for_each_column(places, work.plan.parameters.inner, [&](int place, int column) {
        const float bias = weights[p.feed_forward_in_bias.offset + column];
        work.input(place)[column] = fmaxf(inner(place, column) + bias, 0.0f);
    });
    __syncthreads();
    const Partial outer = work.product(matrix_at(weights, p.feed_forward_out), places);
    __syncthreads();
    for_each_column(places, d, [&](int place, int column) {
        const float y = outer(place, column) + weights[p.feed_forward_out_bias.offset + column];
        if (shape.gated) {
            work.input(place)[column] = fmaxf(y, 0.0f);
        } else {
            stream[place * d + column] += y;
        }
    });
    __syncthreads();
    if (shape.gated) {
        gated_unit(work, weights, {p.feed_forward_from_update, p.feed_forward_from_stream, p.feed_forward_from_reset,
                                   p.feed_forward_gate_bias}, first_place, places);
    } else if (shape.block == Block::published) {
        norm_stream(work, first_place, places, weights + p.feed_forward_norm_weight.offset,
                    weights + p.feed_forward_norm_bias.offset);
    }
}

// Asks for a layer's keys and values ahead of their use: from memory into the cache that all blocks share.
__device__ inline void fetch_ahead(const Work& work, int layer) {
    const EnginePlan& plan = work.plan;
    const int heads = plan.shape.num_heads, line = 32;  // floats
    for (int e = 0; e < work.envs; ++e) {
        const EngineEnv& owner = work.env(e);
        if (owner.rows == 0) continue;
        const int first = (plan.shape.first_read() - owner.cached) / kKeyBlock;
        const int blocks = (owner.first_slot + owner.rows + kKeyBlock - 1) / kKeyBlock - first;
        const float* state = work.layer_state(owner, layer);
        const int key_lines = blocks * plan.shape.d_head, value_lines = blocks * plan.parameters.head_stride;
        for_each(int64_t{heads} * (key_lines + value_lines), [&](int64_t i) {
            const int head = static_cast<int>(i / (key_lines + value_lines));
            const int at = static_cast<int>(i % (key_lines + value_lines));
            const int slot = first * kKeyBlock;
            prefetch(at < key_lines
                         ? state + plan.state.keys + key_offset(plan.shape, plan.state, slot, head, 0) + at * line
                         : state + plan.state.values + value_offset(plan.shape, plan.state, slot, head, 0) +
                               (at - key_lines) * line);
        });
    }
}

__device__ inline void run_layer(const Work& work, int layer) {
    const EnginePlan& plan = work.plan;
    for (int tile = 0; tile < work.tiles; tile += plan.chunk_tiles) {
        project(work, layer, tile * kTile, min(plan.chunk_tiles, work.tiles - tile) * kTile);
    }
    if (layer + 1 < plan.shape.num_layers) fetch_ahead(work, layer + 1);
    __syncthreads();
    for (int tile = 0; tile < work.tiles; tile += plan.chunk_tiles) {
        const int tiles = min(plan.chunk_tiles, work.tiles - tile);
        for (int part = 0; part < tiles; part += plan.attention_tiles) {
            attention(work, layer, tile + part, min(plan.attention_tiles, tiles - part), part * kTile);
        }
        __syncthreads();
        add_attention(work, layer, tile * kTile, tiles * kTile);
        __syncthreads();
        if (plan.shape.d_inner) {
            feed_forward(work, layer, tile * kTile, tiles * kTile);
            __syncthreads();
        }
    }
}

}  // namespace rate
