// How a call of the acting engine is cut into blocks, and what lies where in a block's shared memory.
//
// A block takes `group` environments through all layers. Their rows are laid out in tiles of four, no tile with rows of
// two environments; a tile's places without a row are computed with and never stored. Four tiles, or fewer, are a
// chunk: what passes a matrix product at a time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "rate/engine.h"

namespace rate {

constexpr int32_t kTile = 4;        // places
constexpr int32_t kChunk = 16;      // places at most, the rows of one tensor-core product
constexpr int32_t kColumns = 64;    // of a product that a warp makes at once
constexpr int32_t kDepth = 16;      // of a product's inner dimension that a warp takes at once
constexpr int32_t kInputPad = 8;    // floats after a row of a product's input: rows fall on different banks
constexpr int32_t kMaxThreads = 512;
constexpr int32_t kMaxHeadStride = 128;  // a warp adds up a head's values, four per lane
constexpr int64_t kScanned = 16384;  // input numbers that every block checks itself; of more, a launch before does

// Of one environment in a launch; in shared memory.
struct EngineEnv {
    int32_t index;
    int32_t tokens;      // of the segment, the new ones included
    int32_t fresh;       // new tokens
    int32_t cached;
    int32_t first_slot;  // of its rows, which lie in slot order
    int32_t rows;
    int32_t first_tile;
    int32_t ends;
};

// Shared memory, in floats from its start.
struct EngineShared {
    int32_t envs, tile_env, reduce;
    int32_t input;         // [chunk][input_stride]: what a product multiplies
    int32_t input_stride;
    int32_t partial;       // a product's result, split over its depth; or the results of attention's warps
    int32_t queries;       // [attention tiles][H][d_head + d_model][4]: what meets keys and distances
    int32_t weights;       // [warps][32][4]: softmax weights of one tile, head and block of slots
    int32_t unit;          // [chunk][3 d], with gating
    int32_t stream, query; // [places][d], [places][H hs]: all rows' residual stream and queries; -1: in scratch memory
    int32_t size;
};

struct EnginePlan {
    EngineShape shape;
    ParameterLayout parameters;
    StateLayout state;
    int32_t batch;
    int32_t group;
    int32_t blocks;
    int32_t threads;
    int32_t tiles;            // of a block at most
    int32_t chunk_tiles;      // at a time in a product
    int32_t attention_tiles;  // at a time in attention
    int32_t splits;           // of a row's slots in attention
    EngineShared shared;
    int64_t scratch_stride;   // floats of one block: stream, queries, then the gate's
    int64_t scratch_gate;     // [3][m][d]
};

// The most that partial sums take: with fewer tiles of columns than warps, a product's depth is split.
inline int64_t partial_size(int64_t places, int64_t groups, int64_t columns, int64_t warps) {
    const int64_t tiles = groups * ((columns + kColumns - 1) / kColumns);
    return places * groups * columns * std::max<int64_t>(1, warps / tiles);
}

inline int64_t place_shared(EnginePlan& plan, int32_t chunk_tiles, int32_t attention_tiles, bool streams) {
    const EngineShape& shape = plan.shape;
    const ParameterLayout& p = plan.parameters;
    const int64_t warps = plan.threads / 32, chunk = kTile * chunk_tiles, heads = p.heads;
    int64_t end = 0;
    const auto take = [&](int64_t floats) {
        const int64_t at = end;
        end += (floats + 3) / 4 * 4;
        return static_cast<int32_t>(at);
    };
    EngineShared& shared = plan.shared;
    plan.chunk_tiles = chunk_tiles;
    plan.attention_tiles = attention_tiles;
    shared.envs = take(plan.group * static_cast<int64_t>(sizeof(EngineEnv) / sizeof(float)));
    shared.tile_env = take(plan.tiles);
    shared.reduce = take(32);
    shared.input_stride = std::max({p.d, p.heads, p.inner}) + kInputPad;
    shared.input = take(chunk * shared.input_stride);
    int64_t partial = 0;
    for (const int32_t columns : {3 * p.heads, 2 * p.heads, p.d, 2 * p.d, 3 * p.d, p.inner}) {
        const bool used = shape.gated || (columns != 2 * p.heads && columns != 2 * p.d && columns != 3 * p.d);
        if (columns && (used || columns == 3 * p.heads)) {
            partial = std::max(partial, partial_size(chunk, 1, columns, warps));
        }
    }
    const int64_t rows = kTile * attention_tiles, items = attention_tiles * shape.num_heads;
    partial = std::max(partial, partial_size(rows, shape.num_heads, p.d, warps));
    partial = std::max(partial, items * plan.splits * kTile * (p.head_stride + 2));
    shared.partial = take(partial);
    shared.queries = take(items * (shape.d_head + shape.d_model) * kTile);
    shared.weights = take(warps * 32 * kTile);
    shared.unit = take(shape.gated ? chunk * 3 * p.d : 0);
    shared.stream = shared.query = -1;
    if (streams) {
        shared.stream = take(int64_t{plan.tiles} * kTile * p.d);
        shared.query = take(int64_t{plan.tiles} * kTile * heads);
    }
    shared.size = static_cast<int32_t>(end);
    return end * static_cast<int64_t>(sizeof(float));
}

// ends: for end_segment, where an environment may have its write memory's rows too.
// Throws std::invalid_argument where the shape does not fit the device.
inline EnginePlan plan_engine(const EngineShape& shape, int32_t batch, bool ends, int32_t multiprocessors,
                              int64_t shared_limit, int32_t threads) {
    EnginePlan plan{};
    plan.shape = shape;
    plan.parameters = parameter_layout(shape);
    plan.state = state_layout(shape);
    plan.batch = batch;
    if (plan.parameters.head_stride > kMaxHeadStride) {
        throw std::invalid_argument("d_head must be at most " + std::to_string(kMaxHeadStride) + " on CUDA, got " +
                                    std::to_string(shape.d_head));
    }
    // As many environments to a block as fill one chunk with three new tokens each, once every multiprocessor has one.
    plan.group = std::clamp((batch + multiprocessors - 1) / multiprocessors, 1, kChunk / kTile);
    plan.blocks = (batch + plan.group - 1) / plan.group;
    // What an environment computes must not depend on how many there are, nor on which are beside it: how sums are
    // split follows from these two alone.
    plan.threads = threads ? threads : kMaxThreads;
    plan.splits = std::max(plan.threads / 32 / shape.num_heads, 1);
    const int32_t rows = shape.num_memory + 3 + (ends ? shape.num_memory : 0);
    plan.tiles = plan.group * ((rows + kTile - 1) / kTile);
    const int64_t m = shape.num_memory, d = plan.parameters.d, places = int64_t{plan.tiles} * kTile;
    plan.scratch_gate = places * (d + plan.parameters.heads);
    plan.scratch_stride = plan.scratch_gate + (ends && shape.gate_heads ? 3 * m * d : 0);
    const int32_t most = std::min(kChunk / kTile, plan.tiles);
    int64_t smallest = 0;
    for (int32_t chunk = most; chunk >= 1; chunk /= 2) {
        for (int32_t tiles = chunk; tiles >= 1; tiles /= 2) {
            for (const bool streams : {true, false}) {
                smallest = place_shared(plan, chunk, tiles, streams);
                if (smallest <= shared_limit) return plan;
            }
        }
    }
    throw std::invalid_argument("the model is too wide for one block on CUDA: it needs " + std::to_string(smallest) +
                                " bytes of shared memory, the device gives " + std::to_string(shared_limit));
}

}  // namespace rate
