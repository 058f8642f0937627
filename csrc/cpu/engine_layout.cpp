// Offsets in the parameter block and in the state block: the only place that computes them.

#include "rate/engine.h"

namespace rate {
namespace {

struct Places {
    int64_t end = 0;

    ParameterMatrix add(ParameterMatrix m) {
        m.offset = end;
        m.stride = m.column_groups * m.column_step;
        end += padded(m.elements());
        return m;
    }
    ParameterMatrix rows(int32_t count, int32_t columns) {
        return add({-1, 1, count, count, 1, columns, static_cast<int32_t>(padded(columns)), 0, 0});
    }
    ParameterMatrix vector(int32_t columns) { return rows(1, columns); }
    // A linear map, [in][groups][out]; torch holds [groups out, in].
    ParameterMatrix map(int32_t in, int32_t out, int32_t groups = 1) {
        return add({-1, 1, in, in, groups, out, static_cast<int32_t>(padded(out)), 0, 1});
    }
};

void add_unit(Places& places, int32_t d, ParameterMatrix& update, ParameterMatrix& stream, ParameterMatrix& reset,
              ParameterMatrix& bias) {
    update = places.map(d, d, 3);
    stream = places.map(d, d, 2);
    reset = places.map(d, d);
    bias = places.vector(d);
}

LayerParameters layer_parameters(const EngineShape& shape, Places& places) {
    const int32_t d = shape.d_model, hs = static_cast<int32_t>(padded(shape.d_head));
    LayerParameters p;
    p.attention_norm_weight = places.vector(d);
    p.attention_norm_bias = places.vector(d);
    if (shape.block == Block::published_gated) {
        p.inner_norm_weight = places.vector(d);
        p.inner_norm_bias = places.vector(d);
    }
    p.qkv = places.map(d, shape.d_head, 3 * shape.num_heads);
    p.position = places.rows(shape.num_heads * shape.d_head, d);
    p.output = places.add({-1, shape.num_heads, shape.d_head, hs, 1, d, static_cast<int32_t>(padded(d)), 0, 1});
    if (shape.gated) {
        add_unit(places, d, p.attention_from_update, p.attention_from_stream, p.attention_from_reset,
                 p.attention_gate_bias);
    }
    if (shape.d_inner) {
        p.feed_forward_norm_weight = places.vector(d);
        p.feed_forward_norm_bias = places.vector(d);
        p.feed_forward_in = places.map(d, shape.d_inner);
        p.feed_forward_in_bias = places.vector(shape.d_inner);
        p.feed_forward_out = places.map(shape.d_inner, d);
        p.feed_forward_out_bias = places.vector(d);
        if (shape.gated) {
            add_unit(places, d, p.feed_forward_from_update, p.feed_forward_from_stream, p.feed_forward_from_reset,
                     p.feed_forward_gate_bias);
        }
    }
    return p;
}

ModelParameters model_parameters(const EngineShape& shape, Places& places) {
    const int32_t d = shape.d_model;
    ModelParameters p;
    p.content_bias = p.position_bias = {-1, 1, 1, 1, shape.num_heads, shape.d_head,
                                        static_cast<int32_t>(padded(shape.d_head)), 0, 0};
    p.content_bias = places.add(p.content_bias);
    p.position_bias = places.add(p.position_bias);
    if (shape.num_memory) p.memory = places.rows(shape.num_memory, d);
    if (shape.block == Block::pre_norm) {
        p.final_norm_weight = places.vector(d);
        p.final_norm_bias = places.vector(d);
    }
    if (shape.num_memory && shape.gate_heads) {
        p.gate_query_weight = places.map(d, d);
        p.gate_query_bias = places.vector(d);
        p.gate_key_weight = places.map(d, d);
        p.gate_key_bias = places.vector(d);
        p.gate_value_weight = places.map(d, d);
        p.gate_value_bias = places.vector(d);
        p.gate_output_weight = places.map(d, d);
        p.gate_output_bias = places.vector(d);
    }
    p.return_weight = places.map(1, d);
    p.return_bias = places.vector(d);
    if (shape.observation == Observation::vector) {
        p.observation_weight = places.map(shape.observation_size, d);
        p.observation_bias = places.vector(d);
        if (shape.normalized) {
            p.observation_mean = places.vector(shape.observation_size);
            p.observation_std = places.vector(shape.observation_size);
        }
    } else if (shape.observation == Observation::discrete) {
        p.observation_weight = places.rows(shape.observation_size, d);
    }
    p.head_weight = places.map(d, shape.action_size);
    if (shape.action == Action::continuous) {
        p.action_weight = places.map(shape.action_size, d);
        p.action_bias = places.vector(d);
        p.head_bias = places.vector(shape.action_size);
    } else {
        p.action_weight = places.rows(shape.action_size + 1, d);
    }
    return p;
}

}  // namespace

ParameterLayout parameter_layout(const EngineShape& shape) {
    ParameterLayout layout;
    Places model, layer;
    layout.model = model_parameters(shape, model);
    layout.layer = layer_parameters(shape, layer);
    layout.first_layer = model.end;
    layout.layer_stride = layer.end;
    layout.size = model.end + shape.num_layers * layer.end;
    layout.d = static_cast<int32_t>(padded(shape.d_model));
    layout.head_stride = static_cast<int32_t>(padded(shape.d_head));
    layout.heads = shape.num_heads * layout.head_stride;
    layout.inner = static_cast<int32_t>(padded(shape.d_inner));
    layout.actions = static_cast<int32_t>(padded(shape.action_size));
    return layout;
}

StateLayout state_layout(const EngineShape& shape) {
    const int64_t d = padded(shape.d_model), heads = shape.num_heads * padded(shape.d_head);
    StateLayout layout;
    layout.slots = (shape.slots() + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
    layout.counters = 0;
    layout.memory = kCounters;
    layout.first_layer = layout.memory + shape.num_memory * d;
    layout.keys = 0;
    layout.values = int64_t{layout.slots} * shape.num_heads * shape.d_head;  // a multiple of 32
    layout.layer_stride = layout.values + layout.slots * heads;
    if (shape.cache_len) {
        layout.hidden = layout.layer_stride;
        layout.layer_stride += layout.slots * d;
    }
    layout.stride = layout.first_layer + shape.num_layers * layout.layer_stride;
    return layout;
}

}  // namespace rate
