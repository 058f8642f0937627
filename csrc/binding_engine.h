// How an acting engine's arguments cross from Python, on every device.

#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <tuple>

#include "binding_views.h"
#include "rate/engine.h"

namespace rate {

// shape: the fields of RecurrenceShape, choices as their place in the lists of engine_shape.h.
inline EngineShape engine_shape(const pybind11::dict& shape) {
    const auto integer = [&](const char* name) { return shape[name].cast<int32_t>(); };
    EngineShape s{};
    s.d_model = integer("d_model");
    s.num_layers = integer("num_layers");
    s.num_heads = integer("num_heads");
    s.d_head = integer("d_head");
    s.d_inner = integer("d_inner");
    s.num_memory = integer("num_memory");
    s.segment_tokens = integer("segment_tokens");
    s.cache_len = integer("cache_len");
    s.read_cache = integer("read_cache");
    s.gate_heads = integer("gate_heads");
    s.gated = integer("gated");
    s.block = static_cast<Block>(integer("block"));
    s.gate_activation = static_cast<Activation>(integer("gate_activation"));
    s.observation = static_cast<Observation>(integer("observation"));
    s.observation_size = integer("observation_size");
    s.normalized = integer("normalized");
    s.action = static_cast<Action>(integer("action"));
    s.action_size = integer("action_size");
    s.action_tanh = integer("action_tanh");
    s.action_scale = shape["action_scale"].cast<float>();
    s.return_scale = shape["return_scale"].cast<float>();
    if (s.d_model < 2 || s.num_layers < 1 || s.num_heads < 1 || s.d_head < 1 || s.segment_tokens < 1 ||
        s.action_size < 1 || s.num_memory < 0 || s.cache_len < 0 || s.d_inner < 0) {
        throw std::invalid_argument("engine: impossible sizes");
    }
    return s;
}

// (problem, environment, kind), or none
using Answer = std::optional<std::tuple<int, int, int>>;

inline Answer answer(const Refusal& refusal) {
    if (refusal.problem == Problem::none) return std::nullopt;
    return std::tuple{static_cast<int>(refusal.problem), refusal.env, refusal.kind};
}

// Addresses of count, returns, observations, actions, embedded tokens; 0 where there are none.
using Inputs = std::array<int64_t, 5>;

inline TokenInput token_input(const EngineShape& shape, const Inputs& inputs) {
    TokenInput in{};
    in.count = pointer<const int64_t>(inputs[0]);
    in.returns = pointer<const float>(inputs[1]);
    in.embedded = pointer<const float>(inputs[4]);
    if (shape.observation == Observation::discrete) {
        in.observation_ids = pointer<const int64_t>(inputs[2]);
    } else {
        in.observations = pointer<const float>(inputs[2]);
    }
    if (shape.action == Action::discrete) {
        in.action_ids = pointer<const int64_t>(inputs[3]);
    } else {
        in.actions = pointer<const float>(inputs[3]);
    }
    return in;
}

}  // namespace rate
