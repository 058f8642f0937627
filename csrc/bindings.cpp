// The Python module: turns addresses, sizes and strides into views and calls the operations with the GIL released.
// Callers vouch for the addresses (rate_kernels/recurrence/native.py is the only one). Strides are in elements.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "rate/pack_segment.h"
#include "rate/roll_cache.h"

namespace py = pybind11;

namespace {

// (address, batch stride, row stride)
using View = std::array<int64_t, 3>;
// (cache address, batch stride, row stride, rows, hidden address, batch stride, row stride, rows, out address)
using LayerView = std::array<int64_t, 9>;

rate::Rows rows(int64_t address, int64_t batch_stride, int64_t row_stride, int64_t element_size) {
    return {reinterpret_cast<const char*>(static_cast<uintptr_t>(address)), batch_stride * element_size,
            row_stride * element_size};
}

void pack_segment(uintptr_t out, int64_t batch, int64_t num_memory, int64_t num_write, int64_t tokens, int64_t dim,
                  int64_t element_size, const View& memory, const View& returns, const View& observations,
                  const View& actions, int threads) {
    if (batch < 0 || num_memory < 0 || tokens < 0 || dim < 0 || element_size <= 0 || tokens % 3 == 1 ||
        (num_write != 0 && num_write != num_memory)) {
        throw std::invalid_argument("pack_segment: impossible sizes");
    }
    const auto view = [&](const View& v) { return rows(v[0], v[1], v[2], element_size); };
    const rate::PackShape shape{batch, num_memory, num_write, tokens, dim * element_size};
    const rate::PackInputs inputs{view(memory), view(returns), view(observations), view(actions)};
    const py::gil_scoped_release release;
    rate::pack_segment_cpu(shape, inputs, reinterpret_cast<char*>(out), threads);
}

void roll_cache(const std::vector<LayerView>& views, int64_t batch, int64_t cache_len, int64_t dim,
                int64_t element_size, int threads) {
    if (batch < 0 || cache_len < 0 || dim < 0 || element_size <= 0) {
        throw std::invalid_argument("roll_cache: impossible sizes");
    }
    std::vector<rate::RollLayer> layers;
    layers.reserve(views.size());
    for (const LayerView& v : views) {
        layers.push_back({rows(v[0], v[1], v[2], element_size), v[3], rows(v[4], v[5], v[6], element_size), v[7],
                          reinterpret_cast<char*>(static_cast<uintptr_t>(v[8]))});
    }
    const py::gil_scoped_release release;
    rate::roll_cache_cpu(layers, batch, cache_len, dim * element_size, threads);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Segment recurrence on raw memory; called through rate_kernels.recurrence.";
#ifdef RATE_WITH_CUDA
    module.attr("with_cuda") = true;
#else
    module.attr("with_cuda") = false;
#endif
    module.attr("interface") = 1;  // rises when an argument list changes
    module.def("pack_segment", &pack_segment);
    module.def("roll_cache", &roll_cache);
}
