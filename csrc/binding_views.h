// How tensors cross from Python: tuples of an address and strides in elements, checked and turned into views.

#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "rate/pack_segment.h"
#include "rate/roll_cache.h"

namespace rate {

// (address, batch stride, row stride)
using View = std::array<int64_t, 3>;
// (cache address, batch stride, row stride, rows, hidden address, batch stride, row stride, rows, out address)
using LayerView = std::array<int64_t, 9>;
// (batch, read memory rows, write memory rows, tokens, dim, element size)
using PackSizes = std::array<int64_t, 6>;

template <typename T>
T* pointer(int64_t address) {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(address));
}

inline Rows rows(const View& view, int64_t element_size) {
    return {pointer<const char>(view[0]), view[1] * element_size, view[2] * element_size};
}

inline PackShape pack_shape(const PackSizes& sizes) {
    const auto [batch, num_memory, num_write, tokens, dim, element_size] = sizes;
    if (batch < 0 || num_memory < 0 || tokens < 0 || dim < 0 || element_size <= 0 || tokens % 3 == 1 ||
        (num_write != 0 && num_write != num_memory)) {
        throw std::invalid_argument("pack_segment: impossible sizes");
    }
    return {batch, num_memory, num_write, tokens, dim * element_size};
}

// views: of memory, returns, observations, actions.
inline PackInputs pack_inputs(const std::array<View, 4>& views, int64_t element_size) {
    return {rows(views[0], element_size), rows(views[1], element_size), rows(views[2], element_size),
            rows(views[3], element_size)};
}

inline std::vector<RollLayer> roll_layers(const std::vector<LayerView>& views, int64_t batch, int64_t cache_len,
                                          int64_t dim, int64_t element_size) {
    if (batch < 0 || cache_len < 0 || dim < 0 || element_size <= 0) {
        throw std::invalid_argument("roll_cache: impossible sizes");
    }
    std::vector<RollLayer> layers;
    layers.reserve(views.size());
    for (const LayerView& v : views) {
        layers.push_back({rows({v[0], v[1], v[2]}, element_size), v[3], rows({v[4], v[5], v[6]}, element_size), v[7],
                          pointer<char>(v[8])});
    }
    return layers;
}

void bind_cuda(pybind11::module_& module);    // bindings_cuda.cpp
void bind_engine(pybind11::module_& module);  // bindings_engine.cpp

}  // namespace rate
