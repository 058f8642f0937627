// The Python module: turns addresses, sizes and strides into views and calls the operations with the GIL released.
// Callers vouch for the addresses (the native.py of each operation is the only one). Strides are in elements.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "binding_views.h"
#include "rate/attention.h"
#include "rate/pack_segment.h"
#include "rate/roll_cache.h"

namespace py = pybind11;

namespace {

using rate::LayerView;
using rate::PackSizes;
using rate::pointer;
using rate::View;

// (address, batch stride, row stride, head stride)
using HeadView = std::array<int64_t, 4>;

void pack_segment(int64_t out, const PackSizes& sizes, const std::array<View, 4>& inputs, int threads) {
    const rate::PackShape shape = rate::pack_shape(sizes);
    const rate::PackInputs views = rate::pack_inputs(inputs, sizes.back());
    const py::gil_scoped_release release;
    rate::pack_segment_cpu(shape, views, pointer<char>(out), threads);
}

void roll_cache(const std::vector<LayerView>& views, int64_t batch, int64_t cache_len, int64_t dim,
                int64_t element_size, int threads) {
    const auto layers = rate::roll_layers(views, batch, cache_len, dim, element_size);
    const py::gil_scoped_release release;
    rate::roll_cache_cpu(layers, batch, cache_len, dim * element_size, threads);
}

rate::HeadRows<const float> head_rows(const HeadView& view) {
    return {pointer<const float>(view[0]), view[1], view[2], view[3]};
}

// sizes: batch, heads, query rows, key rows, head_dim, table columns.
// addresses: content bias, position bias, table, first, stop, hidden; those of absent tensors are 0.
rate::AttentionProblem attention_problem(const std::array<int64_t, 6>& sizes, bool published_shift, float scale,
                                         const std::array<HeadView, 3>& views,
                                         const std::array<int64_t, 6>& addresses) {
    for (const int64_t size : sizes) {
        if (size < 0) throw std::invalid_argument("attention: impossible sizes");
    }
    return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], published_shift, scale,
            head_rows(views[0]), head_rows(views[1]), head_rows(views[2]),
            pointer<const float>(addresses[0]), pointer<const float>(addresses[1]), pointer<const float>(addresses[2]),
            pointer<const int32_t>(addresses[3]), pointer<const int32_t>(addresses[4]),
            pointer<const int32_t>(addresses[5])};
}

void attention_forward(const std::array<int64_t, 6>& sizes, bool published_shift, float scale,
                       const std::array<HeadView, 3>& views, const std::array<int64_t, 6>& addresses, int64_t out,
                       int64_t statistics, int threads) {
    const auto problem = attention_problem(sizes, published_shift, scale, views, addresses);
    const py::gil_scoped_release release;
    rate::attention_forward_cpu(problem, {pointer<float>(out), pointer<float>(statistics)}, threads);
}

// gradients: of query, key, value, content bias, position bias, table.
void attention_backward(const std::array<int64_t, 6>& sizes, bool published_shift, float scale,
                        const std::array<HeadView, 3>& views, const std::array<int64_t, 6>& addresses,
                        const HeadView& gradient, int64_t statistics, const std::array<int64_t, 6>& gradients,
                        int threads) {
    const auto problem = attention_problem(sizes, published_shift, scale, views, addresses);
    const auto at = [&](int i) { return pointer<float>(gradients[i]); };
    const rate::AttentionBackward result{head_rows(gradient), pointer<const float>(statistics),
                                         at(0), at(1), at(2), at(3), at(4), at(5)};
    const py::gil_scoped_release release;
    rate::attention_backward_cpu(problem, result, threads);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Segment recurrence and attention on raw memory; called through rate_kernels.";
#ifdef RATE_WITH_CUDA
    module.attr("with_cuda") = true;
    rate::bind_cuda(module);
#else
    module.attr("with_cuda") = false;
#endif
    module.attr("interface") = 3;  // rises when an argument list changes
    module.def("pack_segment", &pack_segment);
    module.def("roll_cache", &roll_cache);
#if defined(__GNUC__)  // the kernel needs the vector extensions of GCC and Clang
    module.def("attention_forward", &attention_forward);
    module.def("attention_backward", &attention_backward);
    module.def("attention_instructions", &rate::attention_instructions);
    rate::bind_engine(module);
#endif
}
