// The acting engine in Python: its layouts as data, and the CPU engine as a class. Addresses come from tensors that
// rate_kernels/recurrence/engine/native.py keeps alive.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "binding_views.h"
#include "rate/engine_cpu.h"

namespace py = pybind11;

namespace rate {
namespace {

// shape: the fields of RecurrenceShape, choices as their place in the lists of engine_shape.h.
EngineShape engine_shape(const py::dict& shape) {
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

py::dict matrix_entry(const ParameterMatrix& m) {
    py::dict entry;
    entry["offset"] = m.offset;
    entry["size"] = py::make_tuple(m.row_groups, m.rows, m.column_groups, m.columns);
    entry["stride"] = py::make_tuple(int64_t{m.row_step} * m.stride, m.stride, m.column_step, 1);
    entry["transposed"] = m.transposed != 0;
    return entry;
}

py::dict parameter_places(const py::dict& shape) {
    const EngineShape s = engine_shape(shape);
    const ParameterLayout layout = parameter_layout(s);
    py::dict places, result;
#define RATE_ENTRY(name) \
    if (layout.model.name.present()) places[#name] = matrix_entry(layout.model.name);
    RATE_MODEL_PARAMETERS(RATE_ENTRY)
#undef RATE_ENTRY
    for (int32_t index = 0; index < s.num_layers; ++index) {
        const std::string prefix = "layers." + std::to_string(index) + ".";
        const auto add = [&](const char* name, ParameterMatrix m) {
            if (!m.present()) return;
            m.offset += layout.first_layer + index * layout.layer_stride;
            places[py::str(prefix + name)] = matrix_entry(m);
        };
#define RATE_ENTRY(name) add(#name, layout.layer.name);
        RATE_LAYER_PARAMETERS(RATE_ENTRY)
#undef RATE_ENTRY
    }
    result["places"] = places;
    result["size"] = layout.size;
    result["d"] = layout.d;
    result["head_stride"] = layout.head_stride;
    return result;
}

py::dict state_places(const py::dict& shape) {
    const StateLayout layout = state_layout(engine_shape(shape));
    py::dict result;
    result["stride"] = layout.stride;
    result["memory"] = layout.memory;
    result["first_layer"] = layout.first_layer;
    result["layer_stride"] = layout.layer_stride;
    result["keys"] = layout.keys;
    result["values"] = layout.values;
    result["hidden"] = layout.hidden;
    result["slots"] = layout.slots;
    result["key_block"] = kKeyBlock;
    return result;
}

std::tuple<int, int> visible(const py::dict& shape, int slot, int tokens, int cached) {
    const KeyRange range = visible_slots(engine_shape(shape), slot, tokens, cached);
    return {range.first, range.stop};
}

// (problem, environment, kind), or none
using Answer = std::optional<std::tuple<int, int, int>>;

Answer answer(const Refusal& refusal) {
    if (refusal.problem == Problem::none) return std::nullopt;
    return std::tuple{static_cast<int>(refusal.problem), refusal.env, refusal.kind};
}

// Addresses of count, returns, observations, actions, embedded tokens; 0 where there are none.
using Inputs = std::array<int64_t, 5>;

class Engine {
public:
    Engine(const py::dict& shape, int64_t parameters, int32_t batch, int64_t state)
        : shape_(engine_shape(shape)), engine_(shape_, pointer<const float>(parameters), batch, pointer<float>(state)) {}

    Answer step(const Inputs& inputs, int64_t hidden, int64_t predictions, int threads) {
        const TokenInput in = input(inputs);
        const TokenOutput out{pointer<float>(hidden), pointer<float>(predictions)};
        const py::gil_scoped_release release;
        return answer(engine_.step(in, out, threads));
    }
    Answer end_segment(int64_t mask, const Inputs& inputs, int threads) {
        const TokenInput in = input(inputs);
        const py::gil_scoped_release release;
        return answer(engine_.end_segment(pointer<const bool>(mask), in, threads));
    }
    void reset(int64_t mask) {
        const py::gil_scoped_release release;
        engine_.reset(pointer<const bool>(mask));
    }

private:
    TokenInput input(const Inputs& inputs) const {
        TokenInput in{};
        in.count = pointer<const int64_t>(inputs[0]);
        in.returns = pointer<const float>(inputs[1]);
        in.embedded = pointer<const float>(inputs[4]);
        if (shape_.observation == Observation::discrete) {
            in.observation_ids = pointer<const int64_t>(inputs[2]);
        } else {
            in.observations = pointer<const float>(inputs[2]);
        }
        if (shape_.action == Action::discrete) {
            in.action_ids = pointer<const int64_t>(inputs[3]);
        } else {
            in.actions = pointer<const float>(inputs[3]);
        }
        return in;
    }

    EngineShape shape_;
    CpuEngine engine_;
};

}  // namespace

void bind_engine(py::module_& module) {
    module.def("engine_parameters", &parameter_places);
    module.def("engine_state", &state_places);
    module.def("engine_visible_slots", &visible);
    module.def("engine_instructions", &CpuEngine::instructions);
    py::class_<Engine>(module, "Engine")
        .def(py::init<const py::dict&, int64_t, int32_t, int64_t>())
        .def("step", &Engine::step)
        .def("end_segment", &Engine::end_segment)
        .def("reset", &Engine::reset);
}

}  // namespace rate
