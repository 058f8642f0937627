// The CUDA half of the module, compiled only where nvcc is. The caller makes the tensors' device current and passes the
// address of a stream of it; nothing here waits for the device.

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "binding_engine.h"
#include "binding_views.h"
#include "rate/engine_cuda.h"

namespace py = pybind11;

namespace rate {
namespace {

// Why no kernel can run here, whatever the device; none when it can.
std::optional<std::string> cuda_obstacle() {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status == cudaSuccess) return std::nullopt;
    cudaGetLastError();
    return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
}

void pack_segment(int64_t out, const PackSizes& sizes, const std::array<View, 4>& inputs, int64_t stream) {
    const PackShape shape = pack_shape(sizes);
    const PackInputs views = pack_inputs(inputs, sizes.back());
    const py::gil_scoped_release release;
    pack_segment_cuda(shape, views, pointer<char>(out), pointer<void>(stream));
}

// outputs: addresses of the gradients of memory, returns, observations, actions.
void unpack_segment(const View& gradient, const PackSizes& sizes, int64_t element,
                    const std::array<int64_t, 4>& outputs, int64_t stream) {
    const PackShape shape = pack_shape(sizes);
    const Rows view = rows(gradient, sizes.back());
    const UnpackOutputs to{pointer<char>(outputs[0]), pointer<char>(outputs[1]), pointer<char>(outputs[2]),
                           pointer<char>(outputs[3])};
    const py::gil_scoped_release release;
    unpack_segment_cuda(shape, view, static_cast<Element>(element), to, pointer<void>(stream));
}

void roll_cache(const std::vector<LayerView>& views, int64_t batch, int64_t cache_len, int64_t dim,
                int64_t element_size, int64_t stream) {
    const auto layers = roll_layers(views, batch, cache_len, dim, element_size);
    const py::gil_scoped_release release;
    roll_cache_cuda(layers, batch, cache_len, dim * element_size, pointer<void>(stream));
}

class BoundEngine {
public:
    BoundEngine(const py::dict& shape, bool bfloat16, int32_t batch, int32_t threads)
        : shape_(engine_shape(shape)), engine_(shape_, bfloat16, batch, threads) {}

    void step(const Inputs& inputs, int64_t hidden, int64_t predictions, int64_t stream) const {
        engine_.step(token_input(shape_, inputs), {pointer<float>(hidden), pointer<float>(predictions)},
                     pointer<void>(stream));
    }
    void end_segment(int64_t mask, const Inputs& inputs, int64_t stream) const {
        engine_.end_segment(pointer<const bool>(mask), token_input(shape_, inputs), pointer<void>(stream));
    }
    void reset(int64_t mask, int64_t stream) const {
        engine_.reset(pointer<const bool>(mask), pointer<void>(stream));
    }
    int64_t angles() const { return engine_.angles(); }
    int64_t scratch() const { return engine_.scratch(); }
    void fill_angles(int64_t on_the_host) const { engine_.fill_angles(pointer<float>(on_the_host)); }
    void attach(int64_t parameters, int64_t state, int64_t angles, int64_t scratch, int64_t report) {
        engine_.attach({pointer<const void>(parameters), pointer<float>(state), pointer<float>(angles),
                        pointer<float>(scratch), pointer<int32_t>(report)});
    }

private:
    EngineShape shape_;
    CudaEngine engine_;
};

}  // namespace

void bind_cuda(py::module_& module) {
    module.attr("cuda_architectures") = RATE_CUDA_ARCHITECTURES;
    module.def("cuda_obstacle", &cuda_obstacle);
    module.def("pack_segment_cuda", &pack_segment);
    module.def("unpack_segment_cuda", &unpack_segment);
    module.def("roll_cache_cuda", &roll_cache);
    py::class_<BoundEngine>(module, "CudaEngine")
        .def(py::init<const py::dict&, bool, int32_t, int32_t>())
        .def("angles", &BoundEngine::angles)
        .def("scratch", &BoundEngine::scratch)
        .def("fill_angles", &BoundEngine::fill_angles)
        .def("attach", &BoundEngine::attach)
        .def("step", &BoundEngine::step)
        .def("end_segment", &BoundEngine::end_segment)
        .def("reset", &BoundEngine::reset)
        .def_static("refusal", [](int32_t report) { return answer(CudaEngine::refusal(report)); });
}

}  // namespace rate
