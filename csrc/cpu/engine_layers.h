// New rows of several environments through all layers. Compiled once per instruction set.

#pragma once

#include "cpu/engine_attention.h"

namespace {

// A thread's memory. Rows have room for whole vectors; what lies behind d_model is 0 in all of them.
struct Workspace {
    float* x;        // [rows][d]: the residual stream
    float* normed;   // [rows][d]
    float* y;        // [rows][d]
    float* qkv;      // [rows][3 heads]
    float* attended; // [rows][heads]
    float* wide;     // [rows][max(inner, 7 d)]: the feed-forward part's middle, the gated units' parts
    float* scores;   // [kTogether][slots]
    float* queries;  // [2 kTogether][d_head]
    int32_t* env;    // [rows]
    int32_t* slot;   // [rows]
    int32_t* wanted; // [rows]: whether the last layer's output is asked for
    int64_t rows;    // in use

    void add(int32_t environment, int32_t at, bool want) {
        env[rows] = environment;
        slot[rows] = at;
        wanted[rows++] = want;
    }
};

inline int64_t take(float* base, int64_t& used, int64_t count, float** part) {
    if (base) *part = base + used;
    return used += round_up(count, 16);
}

// Sets `w` to parts of `base`, or counts the floats that are needed.
inline int64_t lay_out(const rate::EngineModel& model, float* base, Workspace* w) {
    const int64_t rows = model.rows_at_most, d = model.places.d;
    Workspace unused;
    if (!w) w = &unused;
    int64_t used = 0;
    float* integers = nullptr;
    take(base, used, rows * d, &w->x);
    take(base, used, rows * d, &w->normed);
    take(base, used, rows * d, &w->y);
    take(base, used, rows * 3 * model.places.heads, &w->qkv);
    take(base, used, rows * model.places.heads, &w->attended);
    take(base, used, rows * larger(model.places.inner, 7 * d), &w->wide);
    take(base, used, kTogether * model.state.slots, &w->scores);
    take(base, used, 2 * kTogether * model.shape.d_head, &w->queries);
    take(base, used, 3 * rows, &integers);
    if (base) {
        w->env = reinterpret_cast<int32_t*>(integers);
        w->slot = w->env + rows;
        w->wanted = w->slot + rows;
        w->rows = 0;
    }
    return used;
}

// One layer of one engine: its parameters, and the places in the state.
struct Layer {
    const rate::EngineModel& model;
    int index;
    const float* parameters;

    Layer(const rate::EngineModel& m, int layer)
        : model(m), index(layer), parameters(m.parameters + m.places.first_layer + layer * m.places.layer_stride) {}
    const float* at(const rate::ParameterMatrix& p) const { return p.offset < 0 ? nullptr : parameters + p.offset; }
    Matrix matrix(const rate::ParameterMatrix& p, const float* bias = nullptr) const {
        return {parameters + p.offset, int64_t{p.row_groups} * p.row_step, p.stride, p.stride, bias};
    }
    float* state(float* block, int32_t env) const {
        return block + env * model.state.stride + model.state.first_layer + index * model.state.layer_stride;
    }
    void norm(const float* x, const rate::ParameterMatrix& weight, const rate::ParameterMatrix& bias, int64_t rows,
              float* y) const {
        const int64_t d = model.places.d;
        for (int64_t i = 0; i < rows; ++i) {
            normalize(x + i * d, model.shape.d_model, d, at(weight), at(bias), y + i * d);
        }
    }
};

inline int32_t* counters(const rate::EngineModel& model, float* state, int32_t env) {
    return reinterpret_cast<int32_t*>(state + env * model.state.stride + model.state.counters);
}

// Keys and values of a row, from its [3][heads] or (without queries) [2][heads] projections.
inline void keep(const Layer& layer, const float* key, int32_t slot, float* state) {
    const rate::EngineModel& model = layer.model;
    const int64_t d_head = model.shape.d_head, room = model.places.head_stride, slots = model.state.slots;
    const float* value = key + model.places.heads;
    for (int64_t h = 0; h < model.shape.num_heads; ++h) {
        float* to = state + model.state.keys + h * slots * d_head +
                    slot / rate::kKeyBlock * d_head * rate::kKeyBlock + slot % rate::kKeyBlock;
        for (int64_t k = 0; k < d_head; ++k) to[k * rate::kKeyBlock] = key[h * room + k];
        copy_floats(value + h * room, room, state + model.state.values + (h * slots + slot) * room);
    }
}

// How many rows from row i on can be attended to together: of one environment and kind, in adjacent slots.
inline int run_length(const rate::EngineModel& model, const Workspace& w, int64_t i, int32_t tokens) {
    const auto kind = [&](int32_t slot) {
        return (slot >= model.shape.first_token()) + (slot >= model.shape.first_write(tokens));
    };
    int64_t stop = i + 1;
    while (stop < w.rows && stop < i + kTogether && w.env[stop] == w.env[i] && w.slot[stop] == w.slot[stop - 1] + 1 &&
           kind(w.slot[stop]) == kind(w.slot[i])) {
        ++stop;
    }
    return static_cast<int>(stop - i);
}

// Heads outermost: a head's table of distances stays near while all environments read it.
inline void attention(const Layer& layer, const Workspace& w, float* state) {
    const rate::EngineModel& model = layer.model;
    for (int head = 0; head < model.shape.num_heads; ++head) {
        for (int64_t i = 0; i < w.rows;) {
            const int32_t* c = counters(model, state, w.env[i]);
            const int count = run_length(model, w, i, c[rate::kTokens]);
            AttentionRows rows{w.qkv + i * 3 * model.places.heads, w.attended + i * model.places.heads,
                               3 * model.places.heads, model.places.heads, w.slot[i], 0, {}};
            for (int r = 0; r < count; ++r) {
                const auto seen = rate::visible_slots(model.shape, w.slot[i + r], c[rate::kTokens], c[rate::kCached]);
                rows.first = seen.first;
                rows.stops[r] = seen.stop;
            }
            const float* mine = layer.state(state, w.env[i]);
            attend_rows(model, layer.index, head, mine + model.state.keys, mine + model.state.values, rows, count,
                        w.scores, w.queries);
            i += count;
        }
    }
}

// GTrXL's unit in place of x + y; y comes rectified.
inline void gated_unit(const Layer& layer, const Workspace& w, const rate::ParameterMatrix& from_update,
                       const rate::ParameterMatrix& from_stream, const rate::ParameterMatrix& from_reset,
                       const rate::ParameterMatrix& bias) {
    const int64_t d = layer.model.places.d, room = larger(layer.model.places.inner, 7 * d);
    float *const update = w.wide, *const stream = w.wide + 3 * d, *const reset = w.wide + 5 * d;
    float* const candidate = w.wide + 6 * d;
    multiply(w.y, d, w.rows, layer.matrix(from_update), update, room);
    multiply(w.x, d, w.rows, layer.matrix(from_stream), stream, room);
    for (int64_t i = 0; i < w.rows; ++i) {
        for (int64_t k = 0; k < d; k += kLanes) {
            const int64_t at = i * room + k;
            store(reset + at, sigmoid(load(update + at) + load(stream + at)) * load(w.x + i * d + k));
        }
    }
    multiply(reset, room, w.rows, layer.matrix(from_reset), candidate, room);
    const float* const shift = layer.at(bias);
    for (int64_t i = 0; i < w.rows; ++i) {
        for (int64_t k = 0; k < d; k += kLanes) {
            const int64_t at = i * room + k;
            const Vec x = load(w.x + i * d + k);
            const Vec mix = sigmoid(load(update + at + d) + load(stream + at + d) - load(shift + k));
            const Vec h = hyperbolic_tangent(load(update + at + 2 * d) + load(candidate + at));
            store(w.x + i * d + k, x + mix * (h - x));
        }
    }
}

inline void feed_forward(const Layer& layer, const Workspace& w, const float* x) {
    const rate::LayerParameters& p = layer.model.places.layer;
    const int64_t d = layer.model.places.d, room = larger(layer.model.places.inner, 7 * d);
    multiply(x, d, w.rows, layer.matrix(p.feed_forward_in, layer.at(p.feed_forward_in_bias)), w.wide, room);
    for (int64_t i = 0; i < w.rows; ++i) rectify(w.wide + i * room, layer.model.places.inner);
    Matrix out = layer.matrix(p.feed_forward_out, layer.at(p.feed_forward_out_bias));
    multiply(w.wide, room, w.rows, out, w.y, d);
}

// What stands behind attention, whose answer is in w.y; w.normed is what attention's first norm gave, if it has one.
inline void leave(const Layer& layer, const Workspace& w) {
    const rate::EngineModel& model = layer.model;
    const rate::LayerParameters& p = model.places.layer;
    const int64_t count = w.rows * model.places.d;
    if (model.shape.block == rate::Block::published) {
        accumulate(w.x, 2.0f, count, w.y);
        layer.norm(w.y, p.attention_norm_weight, p.attention_norm_bias, w.rows, w.x);
        if (!model.shape.d_inner) return;
        feed_forward(layer, w, w.x);
        accumulate(w.x, 1.0f, count, w.y);
        return layer.norm(w.y, p.feed_forward_norm_weight, p.feed_forward_norm_bias, w.rows, w.x);
    }
    if (model.shape.block == rate::Block::published_gated) accumulate(w.normed, 1.0f, count, w.y);
    if (model.shape.gated) {
        rectify(w.y, count);
        gated_unit(layer, w, p.attention_from_update, p.attention_from_stream, p.attention_from_reset,
                   p.attention_gate_bias);
    } else {
        accumulate(w.y, 1.0f, count, w.x);
    }
    if (!model.shape.d_inner) return;
    layer.norm(w.x, p.feed_forward_norm_weight, p.feed_forward_norm_bias, w.rows, w.normed);
    feed_forward(layer, w, w.normed);
    if (model.shape.gated) {
        rectify(w.y, count);
        gated_unit(layer, w, p.feed_forward_from_update, p.feed_forward_from_stream, p.feed_forward_from_reset,
                   p.feed_forward_gate_bias);
    } else {
        accumulate(w.y, 1.0f, count, w.x);
    }
}

// Of all rows only those whose output is asked for go on; the others have left their keys and values.
inline void drop_unwanted(const rate::EngineModel& model, Workspace& w) {
    const int64_t d = model.places.d, heads = 3 * model.places.heads;
    int64_t kept = 0;
    for (int64_t i = 0; i < w.rows; ++i) {
        if (!w.wanted[i]) continue;
        if (kept != i) {
            copy_floats(w.x + i * d, d, w.x + kept * d);
            copy_floats(w.normed + i * d, d, w.normed + kept * d);
            copy_floats(w.qkv + i * heads, heads, w.qkv + kept * heads);
            w.env[kept] = w.env[i];
            w.slot[kept] = w.slot[i];
            w.wanted[kept] = 1;
        }
        ++kept;
    }
    w.rows = kept;
}

// The rows of w.x, all in the same segments' places as w.env and w.slot say, through all layers. w.x and w.rows are then
// those of the wanted rows, in the same order. kTokens must count the new tokens already.
inline void run_layers(const rate::EngineModel& model, Workspace& w, float* state) {
    const int64_t d = model.places.d, heads = model.places.heads;
    const rate::LayerParameters& p = model.places.layer;
    for (int index = 0; index < model.shape.num_layers; ++index) {
        const Layer layer(model, index);
        if (model.state.hidden >= 0) {
            for (int64_t i = 0; i < w.rows; ++i) {
                copy_floats(w.x + i * d, d, layer.state(state, w.env[i]) + model.state.hidden + w.slot[i] * d);
            }
        }
        const float* entered = w.x;
        if (model.shape.block != rate::Block::published) {
            layer.norm(w.x, p.attention_norm_weight, p.attention_norm_bias, w.rows, w.normed);
            entered = w.normed;
        }
        if (model.shape.block == rate::Block::published_gated) {
            layer.norm(w.normed, p.inner_norm_weight, p.inner_norm_bias, w.rows, w.y);
            entered = w.y;
        }
        multiply(entered, d, w.rows, layer.matrix(p.qkv), w.qkv, 3 * heads);
        for (int64_t i = 0; i < w.rows; ++i) {
            keep(layer, w.qkv + (3 * i + 1) * heads, w.slot[i], layer.state(state, w.env[i]));
        }
        if (index + 1 == model.shape.num_layers) drop_unwanted(model, w);
        if (!w.rows) return;
        attention(layer, w, state);
        multiply(w.attended, heads, w.rows, layer.matrix(p.output), w.y, d);
        leave(layer, w);
    }
    if (model.shape.block == rate::Block::pre_norm && w.rows) {
        const float* weight = model.parameters + model.places.model.final_norm_weight.offset;
        const float* bias = model.parameters + model.places.model.final_norm_bias.offset;
        for (int64_t i = 0; i < w.rows; ++i) {
            normalize(w.x + i * d, model.shape.d_model, d, weight, bias, w.x + i * d);
        }
    }
}

}  // namespace
