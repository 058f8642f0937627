// What a call does for a group of environments: which rows pass the layers, and what becomes of them.
// Compiled once per instruction set.

#pragma once

#include "cpu/engine_layers.h"

namespace {

// --- Tokens in, predictions out --------------------------------------------------------------------------------------

// A linear map of a single row, whose numbers the caller may still have to prepare.
template <typename Number>
void embed_vector(const float* weight, const float* bias, int64_t inputs, int64_t room, const Number& number, float* x) {
    for (int64_t k = 0; k < room; k += kLanes) store(x + k, Vec{});
    for (int64_t i = 0; i < inputs; ++i) {
        const float value = number(i);
        for (int64_t k = 0; k < room; k += kLanes) store(x + k, load(x + k) + load(weight + i * room + k) * value);
    }
    for (int64_t k = 0; k < room; k += kLanes) store(x + k, load(x + k) + load(bias + k));
}

// A row that the caller has in d_model floats.
inline void embed_row(const float* from, int64_t d_model, int64_t room, float* x) {
    clear(x, room);
    copy_floats(from, d_model, x);
}

inline void embed_token(const rate::EngineModel& model, const rate::TokenInput& in, int32_t env, int32_t number,
                        int32_t which, float* x) {
    const rate::EngineShape& s = model.shape;
    const rate::ModelParameters& p = model.places.model;
    const float* const values = model.parameters;
    const int64_t d = model.places.d;
    if (in.embedded) return embed_row(in.embedded + (int64_t{env} * 3 + which) * s.d_model, s.d_model, d, x);
    if (number % 3 == 0) {
        embed_vector(values + p.return_weight.offset, values + p.return_bias.offset, 1, d,
                     [&](int64_t) { return in.returns[env] / s.return_scale; }, x);
    } else if (number % 3 == 1) {
        const int64_t size = s.observation_size;
        if (s.observation == rate::Observation::embedded) {
            embed_row(in.observations + int64_t{env} * s.d_model, s.d_model, d, x);
        } else if (s.observation == rate::Observation::discrete) {
            copy_floats(values + p.observation_weight.offset + in.observation_ids[env] * d, d, x);
        } else {
            const float* const seen = in.observations + env * size;
            const auto number = [&](int64_t i) {
                if (!s.normalized) return seen[i];
                return (seen[i] - values[p.observation_mean.offset + i]) / values[p.observation_std.offset + i];
            };
            embed_vector(values + p.observation_weight.offset, values + p.observation_bias.offset, size, d, number, x);
        }
    } else {
        if (s.action == rate::Action::discrete) {
            copy_floats(values + p.action_weight.offset + in.action_ids[env] * d, d, x);
        } else {
            const float* const done = in.actions + int64_t{env} * s.action_size;
            embed_vector(values + p.action_weight.offset, values + p.action_bias.offset, s.action_size, d,
                         [&](int64_t i) { return done[i] / s.action_scale; }, x);
        }
        if (s.action_tanh) squash(x, d);
    }
}

// Hidden state and predictions of the rows in w.x, one per environment of w.env.
inline void put_out(const rate::EngineModel& model, const Workspace& w, const rate::TokenOutput& out) {
    const rate::EngineShape& s = model.shape;
    const int64_t d = model.places.d, actions = model.places.actions;
    if (out.hidden) {
        for (int64_t i = 0; i < w.rows; ++i) {
            copy_floats(w.x + i * d, s.d_model, out.hidden + int64_t{w.env[i]} * s.d_model);
        }
    }
    if (!out.predictions) return;
    const rate::ParameterMatrix& head = model.places.model.head_weight;
    const bool continuous = s.action == rate::Action::continuous;
    const float* const bias = continuous ? model.parameters + model.places.model.head_bias.offset : nullptr;
    // A strip of rows at a time: the head may be wider than anything that w has room for.
    for (int64_t i = 0; i < w.rows; ++i) {
        float* const to = out.predictions + int64_t{w.env[i]} * s.action_size;
        for (int64_t column = 0; column < actions; column += 16) {
            float part[16];
            multiply(w.x + i * d, d, 1,
                     {model.parameters + head.offset + column, s.d_model, 16, head.stride, bias ? bias + column : nullptr},
                     part, 16);
            if (continuous) squash(part, 16);
            const int64_t count = smaller(16, s.action_size - column);
            for (int64_t k = 0; k < count; ++k) to[column + k] = continuous ? part[k] * s.action_scale : part[k];
        }
    }
}

// --- The end of a segment --------------------------------------------------------------------------------------------

// The gate's answer to `memory` and what was written, both [m][d], into memory. The maps' outputs go to w.wide.
inline void retain(const rate::EngineModel& model, const Workspace& w, float* memory, float* written) {
    const rate::EngineShape& s = model.shape;
    const rate::ModelParameters& p = model.places.model;
    const int64_t d = model.places.d, m = s.num_memory, size = s.d_model / s.gate_heads;
    const auto map = [&](const rate::ParameterMatrix& weight, const rate::ParameterMatrix& bias) -> Matrix {
        return {model.parameters + weight.offset, s.d_model, d, d, model.parameters + bias.offset};
    };
    switch (s.gate_activation) {
        case rate::Activation::relu: rectify(written, m * d); break;
        case rate::Activation::leaky_relu: leaky_rectify(written, m * d); break;
        case rate::Activation::tanh: squash(written, m * d); break;
        case rate::Activation::none: break;
    }
    float *const query = w.wide, *const key = query + m * d, *const value = key + m * d, *const kept = value + m * d;
    float* const weights = kept + m * d;
    multiply(memory, d, m, map(p.gate_query_weight, p.gate_query_bias), query, d);
    multiply(written, d, m, map(p.gate_key_weight, p.gate_key_bias), key, d);
    multiply(written, d, m, map(p.gate_value_weight, p.gate_value_bias), value, d);
    clear(kept, m * d);
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(size));
    for (int64_t at = 0; at < s.d_model; at += size) {  // a head
        for (int64_t i = 0; i < m; ++i) {
            float largest = kUnseen, sum = 0;
            for (int64_t j = 0; j < m; ++j) {
                float score = 0;
                for (int64_t k = at; k < at + size; ++k) score += query[i * d + k] * key[j * d + k];
                weights[j] = score * scale;
                largest = weights[j] > largest ? weights[j] : largest;
            }
            for (int64_t j = 0; j < m; j += kLanes) store(weights + j, exponential(load(weights + j) - largest));
            for (int64_t j = 0; j < m; ++j) sum += weights[j];
            for (int64_t j = 0; j < m; ++j) {
                const float weight = weights[j] / sum;
                for (int64_t k = at; k < at + size; ++k) kept[i * d + k] += weight * value[j * d + k];
            }
        }
    }
    multiply(kept, d, m, map(p.gate_output_weight, p.gate_output_bias), memory, d);
}

// Slots end - cache_len .. end - 1 of a layer become 0 .. cache_len - 1; the first `from` of them are not valid.
inline void roll_layer(const rate::EngineModel& model, float* state, int32_t end, int32_t from) {
    const rate::EngineShape& s = model.shape;
    const int64_t room = model.places.head_stride, slots = model.state.slots, d = model.places.d, d_head = s.d_head;
    const int64_t by = end - s.cache_len, count = s.cache_len - from;
    const auto move = [&](float* rows, int64_t row) {
        __builtin_memmove(rows + from * row, rows + (from + by) * row, static_cast<size_t>(count * row) * 4);
    };
    move(state + model.state.hidden, d);
    if (s.block == rate::Block::published_gated) return;  // keys and values are made anew
    constexpr int64_t block = rate::kKeyBlock;
    for (int64_t h = 0; h < s.num_heads; ++h) {
        move(state + model.state.values + h * slots * room, room);
        float* const keys = state + model.state.keys + h * slots * d_head;
        for (int64_t to = from; to < s.cache_len;) {  // pieces within one block, here and there
            const int64_t source = to + by;
            const int64_t piece = smaller(smaller(block - to % block, block - source % block), s.cache_len - to);
            for (int64_t k = 0; k < d_head; ++k) {
                __builtin_memmove(keys + (to / block * d_head + k) * block + to % block,
                                  keys + (source / block * d_head + k) * block + source % block,
                                  static_cast<size_t>(piece) * 4);
            }
            to += piece;
        }
    }
}

// Keys and values of the cache from its hidden rows, which pass one norm here where running rows pass two.
inline void project_cache(const Layer& layer, const Workspace& w, float* state, int32_t from) {
    const rate::EngineModel& model = layer.model;
    const rate::LayerParameters& p = model.places.layer;
    const int64_t heads = model.places.heads, d = model.places.d;
    Matrix kv = layer.matrix(p.qkv);
    kv.data += heads;
    kv.columns = 2 * heads;
    for (int32_t first = from; first < model.shape.cache_len; first += model.rows_at_most) {
        const int64_t rows = smaller(model.rows_at_most, model.shape.cache_len - first);
        layer.norm(state + model.state.hidden + first * d, p.inner_norm_weight, p.inner_norm_bias, rows, w.normed);
        multiply(w.normed, d, rows, kv, w.qkv, 2 * heads);
        for (int64_t i = 0; i < rows; ++i) {
            keep(layer, w.qkv + 2 * i * heads, static_cast<int32_t>(first + i), state);
        }
    }
}

inline void end_segment(const rate::EngineModel& model, const Workspace& w, int32_t env, float* written,
                        float* state) {
    const rate::EngineShape& s = model.shape;
    const int64_t d = model.places.d;
    int32_t* const c = counters(model, state, env);
    if (s.num_memory) {
        float* const memory = state + env * model.state.stride + model.state.memory;
        if (s.gate_heads) {
            retain(model, w, memory, written);
        } else {
            copy_floats(written, s.num_memory * d, memory);
        }
    }
    if (s.cache_len) {
        const int32_t rows = 2 * s.num_memory + c[rate::kTokens];
        const int32_t cached = static_cast<int32_t>(smaller(s.cache_len, c[rate::kCached] + rows));
        for (int index = 0; index < s.num_layers; ++index) {
            const Layer layer(model, index);
            float* const mine = layer.state(state, env);
            roll_layer(model, mine, s.cache_len + rows, s.cache_len - cached);
            if (s.block == rate::Block::published_gated) project_cache(layer, w, mine, s.cache_len - cached);
        }
        c[rate::kCached] = cached;
    }
    c[rate::kTokens] = 0;
    c[rate::kReadDone] = 0;
}

// --- A call ----------------------------------------------------------------------------------------------------------

inline void add_memory(const rate::EngineModel& model, Workspace& w, int32_t env, int32_t slot, bool want,
                       const float* state) {
    const int64_t d = model.places.d;
    copy_floats(state + env * model.state.stride + model.state.memory, model.shape.num_memory * d, w.x + w.rows * d);
    for (int32_t i = 0; i < model.shape.num_memory; ++i) w.add(env, slot + i, want);
}

// The read memory, where it was not read yet, and the new tokens; the last is wanted unless the segment ends.
inline void add_tokens(const rate::EngineModel& model, Workspace& w, const rate::EngineCall& call, int32_t env) {
    int32_t* const c = counters(model, call.state, env);
    if (!c[rate::kReadDone] && model.shape.num_memory) {
        add_memory(model, w, env, model.shape.first_read(), false, call.state);
    }
    c[rate::kReadDone] = 1;
    const auto count = static_cast<int32_t>(call.input->count[env]);
    for (int32_t i = 0; i < count; ++i) {
        const int32_t number = c[rate::kTokens] + i;
        embed_token(model, *call.input, env, number, i, w.x + w.rows * model.places.d);
        w.add(env, model.shape.first_token() + number, !call.ends && i + 1 == count);
    }
    c[rate::kTokens] += count;
}

inline void run_group(const rate::EngineModel& model, const rate::EngineCall& call, const rate::EngineGroup& group,
                      float* scratch) {
    Workspace w;
    lay_out(model, scratch, &w);
    if (!call.ends) {
        for (int32_t i = 0; i < group.count; ++i) add_tokens(model, w, call, group.envs[i]);
        run_layers(model, w, call.state);
        return put_out(model, w, *call.output);
    }
    // Where the read memory was not read yet, it and the last tokens go first: with the write memory they might be more
    // rows than there is room for.
    constexpr int32_t kTokensRead = 2;
    for (int32_t i = 0; i < group.count; ++i) {
        int32_t* const c = counters(model, call.state, group.envs[i]);
        if (c[rate::kReadDone]) continue;
        add_tokens(model, w, call, group.envs[i]);
        c[rate::kReadDone] = kTokensRead;
    }
    run_layers(model, w, call.state);
    w.rows = 0;
    for (int32_t i = 0; i < group.count; ++i) {
        const int32_t* const c = counters(model, call.state, group.envs[i]);
        if (c[rate::kReadDone] != kTokensRead) add_tokens(model, w, call, group.envs[i]);
        add_memory(model, w, group.envs[i], model.shape.first_write(c[rate::kTokens]), true, call.state);
    }
    run_layers(model, w, call.state);
    for (int32_t i = 0; i < group.count; ++i) {
        float* const written = w.x + int64_t{i} * model.shape.num_memory * model.places.d;
        end_segment(model, w, group.envs[i], written, call.state);
    }
}

inline int64_t scratch_floats(const rate::EngineModel& model) { return lay_out(model, nullptr, nullptr); }

}  // namespace
