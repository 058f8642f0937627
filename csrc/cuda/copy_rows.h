// Copying rows as wide as their addresses allow: what packing, its gradient and the cache roll are made of.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "rate/rows.h"

namespace rate {

constexpr unsigned kCopyThreads = 256;
constexpr int kCopiesPerThread = 4;  // loads in flight at once: what keeps memory busy
constexpr int64_t kLargestGrid = 65535;  // of the second and third dimension

// The widest of 16, 8, 4, 2 and 1 bytes that divides all that was added.
class Alignment {
public:
    void add(int64_t bytes) { bits_ |= static_cast<uint64_t>(bytes); }
    void add(const void* address) { bits_ |= reinterpret_cast<uintptr_t>(address); }
    void add(const Rows& rows, int64_t count) {
        if (count == 0) return;  // never read
        add(rows.data);
        add(rows.batch_stride);
        add(rows.row_stride);
    }
    int64_t bytes() const { return static_cast<int64_t>(bits_ & (~bits_ + 1)); }

private:
    uint64_t bits_ = 16;
};

// Calls with a value of the type that is `bytes` wide.
template <typename Call>
void with_vector(int64_t bytes, const Call& call) {
    switch (bytes) {
        case 16: return call(uint4{});
        case 8: return call(uint2{});
        case 4: return call(uint32_t{});
        case 2: return call(uint16_t{});
        default: return call(uint8_t{});
    }
}

// Blocks for one batch entry of `count` vectors.
inline unsigned copy_blocks(int64_t count) {
    const int64_t per_block = kCopyThreads * kCopiesPerThread, blocks = (count + per_block - 1) / per_block;
    return static_cast<unsigned>(blocks < kLargestGrid ? blocks : kLargestGrid);
}

// Copies `rows` rows of `width` vectors to `out`, where they lie one after another. source(row) is a row's address.
// The blocks of the grid's first dimension share the work.
template <typename Vector, typename Source>
__device__ void copy_rows(Vector* out, int64_t rows, int64_t width, const Source& source) {
    const int64_t count = rows * width;
    const bool small = count <= INT32_MAX;  // a 64-bit division is a subroutine
    const int64_t stride = static_cast<int64_t>(gridDim.x) * kCopyThreads * kCopiesPerThread;
    int64_t first = static_cast<int64_t>(blockIdx.x) * kCopyThreads * kCopiesPerThread + threadIdx.x;
    for (; first < count; first += stride) {
        Vector loaded[kCopiesPerThread];
#pragma unroll
        for (int k = 0; k < kCopiesPerThread; ++k) {
            const int64_t i = first + k * static_cast<int64_t>(kCopyThreads);
            if (i >= count) break;
            const int64_t row = small ? static_cast<uint32_t>(i) / static_cast<uint32_t>(width) : i / width;
            loaded[k] = reinterpret_cast<const Vector*>(source(row))[i - row * width];
        }
#pragma unroll
        for (int k = 0; k < kCopiesPerThread; ++k) {
            const int64_t i = first + k * static_cast<int64_t>(kCopyThreads);
            if (i >= count) break;
            out[i] = loaded[k];
        }
    }
}

}  // namespace rate
