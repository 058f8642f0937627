#include "rate/pack_segment.h"

#include <cstring>

#include "cpu/parallel.h"

namespace rate {

void pack_segment_cpu(const PackShape& shape, const PackInputs& inputs, char* out, int threads) {
    const int64_t rows = shape.rows();
    const size_t row_bytes = static_cast<size_t>(shape.row_bytes);
    if (row_bytes == 0) return;
    parallel_for(shape.batch * rows, shape.batch * rows * shape.row_bytes, threads, [&](int64_t begin, int64_t end) {
        int64_t batch = begin / rows, row = begin % rows;
        for (int64_t i = begin; i < end; ++i) {
            std::memcpy(out + i * shape.row_bytes, packed_row(shape, inputs, batch, row), row_bytes);
            if (++row == rows) {
                row = 0;
                ++batch;
            }
        }
    });
}

}  // namespace rate
