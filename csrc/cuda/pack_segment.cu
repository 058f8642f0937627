#include "rate/pack_segment.h"

#include <algorithm>

#include "cuda/copy_rows.h"
#include "cuda/launch.h"

namespace rate {
namespace {

template <typename Vector>
__global__ void __launch_bounds__(kCopyThreads)
    pack(const __grid_constant__ PackShape shape, const __grid_constant__ PackInputs inputs, char* out) {
    const int64_t rows = shape.rows();
    for (int64_t entry = blockIdx.y; entry < shape.batch; entry += gridDim.y) {
        copy_rows(reinterpret_cast<Vector*>(out + entry * rows * shape.row_bytes), rows,
                  shape.row_bytes / static_cast<int64_t>(sizeof(Vector)),
                  [&](int64_t row) { return packed_row(shape, inputs, entry, row); });
    }
}

}  // namespace

void pack_segment_cuda(const PackShape& shape, const PackInputs& inputs, char* out, void* stream) {
    const int64_t rows = shape.rows();
    if (shape.batch * rows * shape.row_bytes == 0) return;
    Alignment alignment;
    alignment.add(shape.row_bytes);
    alignment.add(out);
    alignment.add(inputs.memory, shape.num_memory);
    alignment.add(inputs.returns, shape.tokens);
    alignment.add(inputs.observations, shape.tokens);
    alignment.add(inputs.actions, shape.tokens / 3);
    with_vector(alignment.bytes(), [&](auto vector) {
        using Vector = decltype(vector);
        const dim3 blocks(copy_blocks(rows * shape.row_bytes / static_cast<int64_t>(sizeof(Vector))),
                          static_cast<unsigned>(std::min(shape.batch, kLargestGrid)));
        launch("pack_segment", pack<Vector>, blocks, kCopyThreads, 0, stream, shape, inputs, out);
    });
}

}  // namespace rate
