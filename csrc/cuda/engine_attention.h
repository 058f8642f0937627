// Attention of a block's rows over their environments' slots.
//
// The position term is taken in its separable form: (q + v) W, rotated by the row's own angles, meets a table of angles
// that all layers and heads share and that stays in the nearest cache. So a score is one inner product, of d_head
// numbers with a key and of d_model numbers with the table.
//
// A warp takes one tile (four rows), one head, and a part of the slots, 32 at a time, a slot per lane; softmax is
// computed as it goes. The parts are joined at the end.

#pragma once

#include "cuda/engine_work.h"

namespace rate {

constexpr float kLog2E = 1.4426950408889634f;

__device__ inline KeyRange range_of(const EnginePlan& plan, const Row& row) {
    if (row.slot < 0) return {0, 0};
    return visible_slots(plan.shape, row.slot, row.env->tokens, row.env->cached);
}

// [q + u; rotated (q + v) W] of every tile and head, rows innermost, times log2(e) / sqrt(d_head).
__device__ inline void prepare_queries(const Work& work, int layer, int first_tile, int tiles,
                                       int first_place) {
    const EnginePlan& plan = work.plan;
    const ParameterLayout& p = plan.parameters;
    const int hs = p.head_stride, heads = plan.shape.num_heads, d_head = plan.shape.d_head, d = plan.shape.d_model;
    const int places = tiles * kTile;
    for_each_column(places, p.heads, [&](int place, int column) {
        work.input(first_place + place)[column] = work.query[(first_tile * kTile + place) * p.heads + column] +
                                                  work.model[p.model.position_bias.offset + column];
    });
    __syncthreads();
    const Parameters weights = work.layer_weights(layer) + p.layer.position.offset;
    const Partial turned = work.product({weights, d_head, p.d, p.d, heads, d_head * p.d, hs}, places, first_place);
    __syncthreads();
    float* out = shared_floats() + plan.shared.queries;
    const float scale = kLog2E * rsqrtf(static_cast<float>(d_head));
    const int width = d_head + d, half = d / 2, items = d_head + half;
    for_each_column(tiles * heads, items * kTile, [&](int part, int i) {
        const int x = i / kTile, r = i % kTile, head = part % heads, place = part / heads * kTile + r;
        float* to = out + part * width * kTile + r;
        if (x < d_head) {
            const float content = work.model[p.model.content_bias.offset + head * hs + x];
            to[x * kTile] = (work.query[(first_tile * kTile + place) * p.heads + head * hs + x] + content) * scale;
            return;
        }
        const int k = x - d_head, slot = max(work.row(first_tile * kTile + place).slot, 0);
        const float* angles = work.call.angles + static_cast<int64_t>(slot / kKeyBlock) * d * kKeyBlock +
                              slot % kKeyBlock;
        const float cosine = __ldg(angles + k * kKeyBlock), sine = __ldg(angles + (k + half) * kKeyBlock);
        const float a = turned(place, head * p.d + k), b = turned(place, head * p.d + k + half);
        to[x * kTile] = (a * sine + b * cosine) * scale;
        to[(x + half) * kTile] = (b * sine - a * cosine) * scale;
    });
}

// Softmax over the slots of blocks first .. stop - 1 for one tile and head, into a record [4][hs] values, [4] maxima,
// [4] sums of weights.
__device__ inline void attend(const EnginePlan& plan, const float* keys, const float* values, const float* angles,
                              const float4* query, const KeyRange (&ranges)[kTile], int first, int stop,
                              float4* weights, float* record) {
    const int hs = plan.parameters.head_stride, d_head = plan.shape.d_head, d = plan.shape.d_model;
    const int lane = lane_id();
    // Values: a lane holds four columns of one slot of a group of slots.
    const int columns = hs / 4, side_by_side = columns <= 8 ? (columns <= 4 ? 8 : 4) : columns <= 16 ? 2 : 1;
    const int own_slot = lane / columns, own_column = lane % columns;
    int visible_first = ranges[0].first, visible_stop = ranges[0].stop;
#pragma unroll
    for (int r = 1; r < kTile; ++r) {
        if (ranges[r].stop == 0) continue;
        visible_first = min(visible_first, ranges[r].first);
        visible_stop = max(visible_stop, ranges[r].stop);
    }
    float most[kTile], total[kTile], sum[kTile][4] = {};
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
        most[r] = -INFINITY;
        total[r] = 0;
    }
    for (int block = first; block < stop; ++block) {
        const float* key = keys + static_cast<int64_t>(block) * d_head * kKeyBlock + lane;
        const float* angle = angles + static_cast<int64_t>(block) * d * kKeyBlock + lane;
        float score[kTile] = {};
        const auto add = [&](const float4& q, float k) {
            score[0] += q.x * k;
            score[1] += q.y * k;
            score[2] += q.z * k;
            score[3] += q.w * k;
        };
#pragma unroll 8
        for (int x = 0; x < d_head; ++x) add(query[x], key[x * kKeyBlock]);
#pragma unroll 8
        for (int x = 0; x < d; ++x) add(query[d_head + x], __ldg(angle + x * kKeyBlock));
        const int slot = block * kKeyBlock + lane;
#pragma unroll
        for (int r = 0; r < kTile; ++r) {
            if (slot < ranges[r].first || slot >= ranges[r].stop) score[r] = -INFINITY;  // whatever was there
            const float now = fmaxf(most[r], warp_max(score[r]));
            const float kept = now == -INFINITY ? 1.0f : exp2f(most[r] - now);
            score[r] = now == -INFINITY ? 0.0f : exp2f(score[r] - now);
            most[r] = now;
            total[r] = total[r] * kept + score[r];
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[r][i] *= kept;
        }
        __syncwarp();  // the weights of the block before have been read
        weights[lane] = make_float4(score[0], score[1], score[2], score[3]);
        __syncwarp();
        if (own_slot < side_by_side) {
            const float* value = values + static_cast<int64_t>(block) * kKeyBlock * hs + 4 * own_column;
#pragma unroll 4
            for (int s = own_slot; s < kKeyBlock; s += side_by_side) {
                const int at = block * kKeyBlock + s;
                if (at < visible_first || at >= visible_stop) continue;
                const float4 v = *reinterpret_cast<const float4*>(value + s * hs), w = weights[s];
                const float by_row[kTile] = {w.x, w.y, w.z, w.w};
#pragma unroll
                for (int r = 0; r < kTile; ++r) {
                    sum[r][0] += by_row[r] * v.x;
                    sum[r][1] += by_row[r] * v.y;
                    sum[r][2] += by_row[r] * v.z;
                    sum[r][3] += by_row[r] * v.w;
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < kTile; ++r) {
        total[r] = warp_sum(total[r]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float whole = sum[r][i];
#pragma unroll 1
            for (int other = 1; other < side_by_side; ++other) {
                whole += __shfl_sync(kWholeWarp, sum[r][i], (lane + other * columns) & 31);
            }
            if (lane < columns) record[r * hs + 4 * lane + i] = whole;
        }
        if (lane == 0) {
            record[kTile * hs + r] = most[r];
            record[kTile * hs + kTile + r] = total[r];
        }
    }
}

// Rows of `tiles` tiles; what they read, [H hs], becomes the input's rows from first_place on. Keys and values of all
// rows have been stored. The caller syncs before the input is read.
__device__ inline void attention(const Work& work, int layer, int first_tile, int tiles, int first_place) {
    const EnginePlan& plan = work.plan;
    const int heads = plan.shape.num_heads, hs = plan.parameters.head_stride, d_head = plan.shape.d_head;
    const int width = d_head + plan.shape.d_model, record = kTile * (hs + 2);
    prepare_queries(work, layer, first_tile, tiles, first_place);
    __syncthreads();
    const int splits = plan.splits;
    float* records = shared_floats() + plan.shared.partial;  // the product there has been read
    for (int item = warp_id(); item < tiles * heads * splits; item += warp_count()) {
        const int part = item / splits, split = item % splits, tile = part / heads, head = part % heads;
        const EngineEnv& owner = work.env_of(first_tile + tile);
        KeyRange ranges[kTile];
        int first = plan.state.slots, stop = 0;
#pragma unroll
        for (int r = 0; r < kTile; ++r) {
            ranges[r] = range_of(plan, work.row((first_tile + tile) * kTile + r));
            if (ranges[r].stop == 0) continue;
            first = min(first, ranges[r].first);
            stop = max(stop, ranges[r].stop);
        }
        const int first_block = first / kKeyBlock, blocks = (stop + kKeyBlock - 1) / kKeyBlock - first_block;
        const float* layer_state = work.layer_state(owner, layer);
        attend(plan, layer_state + plan.state.keys + key_offset(plan.shape, plan.state, 0, head, 0),
               layer_state + plan.state.values + value_offset(plan.shape, plan.state, 0, head, 0), work.call.angles,
               reinterpret_cast<const float4*>(shared_floats() + plan.shared.queries) + part * width, ranges,
               first_block + blocks * split / splits, first_block + blocks * (split + 1) / splits,
               reinterpret_cast<float4*>(shared_floats() + plan.shared.weights) + warp_id() * kKeyBlock,
               records + item * record);
    }
    __syncthreads();
    for_each_column(tiles * kTile, plan.parameters.heads, [&](int place, int column) {
        const int head = column / hs, x = column % hs, r = place % kTile;
        const float* from = records + (place / kTile * heads + head) * splits * record;
        float most = -INFINITY, sum = 0, total = 0;
        for (int split = 0; split < splits; ++split) most = fmaxf(most, from[split * record + kTile * hs + r]);
        for (int split = 0; split < splits; ++split) {
            const float* part = from + split * record;
            const float weight = most == -INFINITY ? 0.0f : exp2f(part[kTile * hs + r] - most);
            sum += weight * part[r * hs + x];
            total += weight * part[kTile * hs + kTile + r];
        }
        work.input(first_place + place)[column] = total > 0 ? sum / total : 0.0f;  // a place without a row
    });
}

}  // namespace rate
