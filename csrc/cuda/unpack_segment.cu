#include <algorithm>

#include "cuda/copy_rows.h"
#include "cuda/launch.h"
#include "cuda/numbers.h"
#include "rate/pack_segment.h"

namespace rate {
namespace {

// One vector of elements. Wide: 16 bytes; otherwise a single element.
template <typename Number, bool wide>
struct alignas(wide ? 16 : alignof(Number)) Numbers {
    static constexpr int count = wide ? 16 / static_cast<int>(sizeof(Number)) : 1;
    Number at[count];
};

template <typename Number, bool wide>
__global__ void __launch_bounds__(kCopyThreads)
    unpack(const __grid_constant__ PackShape shape, const __grid_constant__ Rows gradient,
           const __grid_constant__ UnpackOutputs outputs) {
    using Vector = Numbers<Number, wide>;
    const int64_t width = shape.row_bytes / static_cast<int64_t>(sizeof(Vector));
    const int64_t rows = shape.num_memory + shape.tokens, count = rows * width;
    const int64_t steps = (shape.tokens + 2) / 3, actions = shape.tokens / 3;
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kCopyThreads;
    const auto vectors = [](const char* row) { return reinterpret_cast<const Vector*>(row); };
    for (int64_t entry = blockIdx.y; entry < shape.batch; entry += gridDim.y) {
        for (int64_t i = static_cast<int64_t>(blockIdx.x) * kCopyThreads + threadIdx.x; i < count; i += stride) {
            const int64_t row = i / width, column = i - row * width, token = row - shape.num_memory;
            Vector value = vectors(gradient.at(entry, row))[column];
            char* out;
            int64_t out_row;
            if (token < 0) {
                out = outputs.memory;
                out_row = entry * shape.num_memory + row;
                if (shape.num_write) {
                    const Vector second = vectors(gradient.at(entry, row + rows))[column];
#pragma unroll
                    for (int k = 0; k < Vector::count; ++k) value.at[k] = sum(value.at[k], second.at[k]);
                }
            } else {
                const int64_t step = token / 3, kind = token - 3 * step;
                out = kind == 0 ? outputs.returns : kind == 1 ? outputs.observations : outputs.actions;
                out_row = entry * (kind == 2 ? actions : steps) + step;
            }
            reinterpret_cast<Vector*>(out + out_row * shape.row_bytes)[column] = value;
        }
    }
}

template <typename Number>
void unpack_numbers(const PackShape& shape, const Rows& gradient, const UnpackOutputs& outputs, void* stream) {
    Alignment alignment;
    alignment.add(shape.row_bytes);
    alignment.add(gradient, 1);
    if (shape.num_memory) alignment.add(outputs.memory);
    alignment.add(outputs.returns);
    alignment.add(outputs.observations);
    if (shape.tokens / 3) alignment.add(outputs.actions);
    const bool wide = alignment.bytes() == 16;
    const int64_t vector_bytes = wide ? 16 : static_cast<int64_t>(sizeof(Number));
    const int64_t vectors = (shape.num_memory + shape.tokens) * (shape.row_bytes / vector_bytes);
    const dim3 blocks(static_cast<unsigned>(std::min((vectors + kCopyThreads - 1) / kCopyThreads, kLargestGrid)),
                      static_cast<unsigned>(std::min(shape.batch, kLargestGrid)));
    launch("unpack_segment", wide ? unpack<Number, true> : unpack<Number, false>, blocks, kCopyThreads, 0, stream,
           shape, gradient, outputs);
}

}  // namespace

void unpack_segment_cuda(const PackShape& shape, const Rows& gradient, Element element, const UnpackOutputs& outputs,
                         void* stream) {
    if (shape.batch * (shape.num_memory + shape.tokens) * shape.row_bytes == 0) return;
    switch (element) {
        case Element::float32: return unpack_numbers<float>(shape, gradient, outputs, stream);
        case Element::float64: return unpack_numbers<double>(shape, gradient, outputs, stream);
        case Element::bfloat16: return unpack_numbers<__nv_bfloat16>(shape, gradient, outputs, stream);
        case Element::float16: return unpack_numbers<__half>(shape, gradient, outputs, stream);
    }
    throw std::invalid_argument("unpack_segment: unknown element type");
}

}  // namespace rate
