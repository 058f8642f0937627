#include "rate/roll_cache.h"

#include <cstring>

#include "cpu/parallel.h"

namespace rate {
namespace {

void copy_rows(char* out, const Rows& from, int64_t batch, int64_t first, int64_t count, int64_t row_bytes) {
    if (count == 0) return;  // an empty tensor may have no address
    if (from.row_stride == row_bytes) {
        std::memcpy(out, from.at(batch, first), static_cast<size_t>(count * row_bytes));
        return;
    }
    for (int64_t row = 0; row < count; ++row) {
        std::memcpy(out + row * row_bytes, from.at(batch, first + row), static_cast<size_t>(row_bytes));
    }
}

}  // namespace

void roll_cache_cpu(const std::vector<RollLayer>& layers, int64_t batch, int64_t cache_len, int64_t row_bytes,
                    int threads) {
    if (row_bytes == 0 || batch == 0) return;
    int64_t bytes = 0;
    for (const RollLayer& layer : layers) bytes += batch * layer.kept(cache_len) * row_bytes;
    const int64_t count = static_cast<int64_t>(layers.size()) * batch;
    parallel_for(count, bytes, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const RollLayer& layer = layers[static_cast<size_t>(i / batch)];
            const int64_t entry = i % batch, kept = layer.kept(cache_len);
            const int64_t new_rows = layer.kept_of_hidden(cache_len), old_rows = kept - new_rows;
            char* out = layer.out + entry * kept * row_bytes;
            copy_rows(out, layer.cache, entry, layer.cache_rows - old_rows, old_rows, row_bytes);
            copy_rows(out + old_rows * row_bytes, layer.hidden, entry, layer.hidden_rows - new_rows, new_rows,
                      row_bytes);
        }
    });
}

}  // namespace rate
