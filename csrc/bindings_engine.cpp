// The acting engine in Python: its layouts as data, and the CPU engine as a class. Addresses come from tensors that
// rate_kernels/recurrence/engine/native.py keeps alive.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "binding_engine.h"
#include "binding_views.h"
#include "rate/engine_cpu.h"

namespace py = pybind11;

namespace rate {
namespace {

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

class Engine {
public:
    Engine(const py::dict& shape, int64_t parameters, int32_t batch, int64_t state)
        : shape_(engine_shape(shape)), engine_(shape_, pointer<const float>(parameters), batch, pointer<float>(state)) {}

    Answer step(const Inputs& inputs, int64_t hidden, int64_t predictions, int threads) {
        const TokenInput in = token_input(shape_, inputs);
        const TokenOutput out{pointer<float>(hidden), pointer<float>(predictions)};
        const py::gil_scoped_release release;
        return answer(engine_.step(in, out, threads));
    }
    Answer end_segment(int64_t mask, const Inputs& inputs, int threads) {
        const TokenInput in = token_input(shape_, inputs);
        const py::gil_scoped_release release;
        return answer(engine_.end_segment(pointer<const bool>(mask), in, threads));
    }
    void reset(int64_t mask) {
        const py::gil_scoped_release release;
        engine_.reset(pointer<const bool>(mask));
    }

private:
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
