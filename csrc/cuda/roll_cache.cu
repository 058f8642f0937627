#include "rate/roll_cache.h"

#include <algorithm>

#include "cuda/copy_rows.h"
#include "cuda/launch.h"

namespace rate {
namespace {

constexpr size_t kLayersPerLaunch = 32;  // they travel as an argument of the kernel: at most 4 KB

struct Layers {
    RollLayer layer[kLayersPerLaunch];
};

template <typename Vector>
__global__ void __launch_bounds__(kCopyThreads)
    roll(const __grid_constant__ Layers layers, int64_t batch, int64_t cache_len, int64_t row_bytes) {
    const RollLayer& layer = layers.layer[blockIdx.z];
    const int64_t kept = layer.kept(cache_len), old_rows = kept - layer.kept_of_hidden(cache_len);
    const int64_t first_old = layer.cache_rows - old_rows, first_new = layer.hidden_rows - (kept - old_rows);
    for (int64_t entry = blockIdx.y; entry < batch; entry += gridDim.y) {
        copy_rows(reinterpret_cast<Vector*>(layer.out + entry * kept * row_bytes), kept,
                  row_bytes / static_cast<int64_t>(sizeof(Vector)), [&](int64_t row) {
                      return row < old_rows ? layer.cache.at(entry, first_old + row)
                                            : layer.hidden.at(entry, first_new + row - old_rows);
                  });
    }
}

}  // namespace

void roll_cache_cuda(const std::vector<RollLayer>& layers, int64_t batch, int64_t cache_len, int64_t row_bytes,
                     void* stream) {
    if (row_bytes == 0 || batch == 0) return;
    for (size_t first = 0; first < layers.size(); first += kLayersPerLaunch) {
        const size_t count = std::min(kLayersPerLaunch, layers.size() - first);
        Layers some{};
        Alignment alignment;
        alignment.add(row_bytes);
        int64_t most = 0;
        for (size_t i = 0; i < count; ++i) {
            const RollLayer& layer = some.layer[i] = layers[first + i];
            const int64_t kept = layer.kept(cache_len), new_rows = layer.kept_of_hidden(cache_len);
            most = std::max(most, kept);
            if (kept) alignment.add(layer.out);
            alignment.add(layer.cache, kept - new_rows);
            alignment.add(layer.hidden, new_rows);
        }
        if (most == 0) continue;
        with_vector(alignment.bytes(), [&](auto vector) {
            using Vector = decltype(vector);
            const dim3 blocks(copy_blocks(most * row_bytes / static_cast<int64_t>(sizeof(Vector))),
                              static_cast<unsigned>(std::min(batch, kLargestGrid)), static_cast<unsigned>(count));
            launch("roll_cache", roll<Vector>, blocks, kCopyThreads, 0, stream, some, batch, cache_len, row_bytes);
        });
    }
}

}  // namespace rate
