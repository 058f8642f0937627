// The CUDA half of the module, compiled only where nvcc is. The caller makes the tensors' device current and passes the
// address of a stream of it; nothing here waits for the device.

#include <cuda_runtime.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "binding_views.h"

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

}  // namespace

void bind_cuda(py::module_& module) {
    module.attr("cuda_architectures") = RATE_CUDA_ARCHITECTURES;
    module.def("cuda_obstacle", &cuda_obstacle);
    module.def("pack_segment_cuda", &pack_segment);
    module.def("unpack_segment_cuda", &unpack_segment);
    module.def("roll_cache_cuda", &roll_cache);
}

}  // namespace rate
