// What the engine's kernels are made of: warp-wide sums, the two types of weights, and products of few rows.

#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/engine_plan.h"

namespace rate {

extern __shared__ float4 engine_shared[];
__device__ inline float* shared_floats() { return reinterpret_cast<float*>(engine_shared); }

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) & 31; }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x) >> 5; }
__device__ inline int warp_count() { return static_cast<int>(blockDim.x) >> 5; }

constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline float warp_sum(float value) {
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(kWholeWarp, value, step);
    return value;
}
__device__ inline float warp_max(float value) {
    for (int step = 16; step; step >>= 1) value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, step));
    return value;
}

__device__ inline float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
// The parameter block, or a place in it. Its type is known when it runs: one kernel for both takes half the time to
// compile, and outside of products a branch that all threads take alike costs nothing.
struct Parameters {
    const char* at;
    bool bfloat16;  // or float32

    __device__ float operator[](int64_t i) const {
        if (!bfloat16) return reinterpret_cast<const float*>(at)[i];
        return bits_to_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(at)[i]) << 16);
    }
    __device__ Parameters operator+(int64_t elements) const {
        return {at + elements * (bfloat16 ? 2 : 4), bfloat16};
    }
};

// Sixteen bytes of weights, which no kernel writes.
__device__ inline uint4 load16(const void* at) { return __ldg(static_cast<const uint4*>(at)); }

__device__ inline void prefetch(const void* at) {
#ifdef __CUDACC__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#else
    (void)at;
#endif
}

// --- Tensor cores ----------------------------------------------------------------------------------------------------

// Two numbers rounded to bfloat16, the first in the lower half.
__device__ inline uint32_t round_pair(float first, float second) {
#ifdef __CUDACC__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    const auto rounded = [](float value) {
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    };
    return rounded(first) | rounded(second) << 16;
#endif
}

// The numbers as a sum of two bfloat16: right to 2^-17, so that only the weights are rounded.
__device__ inline void split_pair(float2 value, uint32_t& high, uint32_t& low) {
    high = round_pair(value.x, value.y);
    low = round_pair(value.x - bits_to_float(high << 16), value.y - bits_to_float(high & 0xffff0000u));
}

// sum [16][8] += a [16][16] b [16][8]; the fragments are those of the instruction.
__device__ inline void multiply_tile(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef __CUDACC__
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    emulated_multiply_tile(sum, a, b0, b1);
#endif
}

// --- Products --------------------------------------------------------------------------------------------------------

// One [k][n] matrix, or several side by side in the result, each with its own part of the input's row.
struct Matrix {
    Parameters at;
    int k, n, stride;
    int groups = 1, group_step = 0, input_step = 0;

    __device__ int width() const { return groups * n; }
};

// The partial sums of a product: [slices][places][width]. They are added up in this order by whoever reads them.
struct Partial {
    const float* at;
    int slices, places, width;

    __device__ float operator()(int place, int column) const {
        const float* from = at + place * width + column;
        float sum = *from;
#pragma unroll 2
        for (int slice = 1; slice < slices; ++slice) sum += from[slice * places * width];
        return sum;
    }
};

__device__ inline void warp_product_bfloat16(const Matrix& matrix, int group, int column0, int first, int stop,
                                    const float* input, int input_stride, float* out, int places) {
    const int g = lane_id() >> 2, t = lane_id() & 3;
    // A lane loads eight columns at once, and gives the tensor core one of them at a time: tile j is made of the
    // columns column0 + 8 i + j, i = 0 .. 7.
    const int column = column0 + 8 * g;
    const uint16_t* weights = reinterpret_cast<const uint16_t*>(matrix.at.at) +
                              static_cast<int64_t>(group) * matrix.group_step + column;
    const float* low_row = input + group * matrix.input_step + g * input_stride + 2 * t;
    const float* high_row = low_row + 8 * input_stride;
    float sum[8][4] = {};
#pragma unroll 2
    for (int step = first; step < stop; ++step) {
        const int k = step * kDepth + 2 * t;
        const int rows[4] = {k, k + 1, k + 8, k + 9};
        uint4 w[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            w[i] = column < matrix.n && rows[i] < matrix.k
                       ? load16(weights + static_cast<int64_t>(rows[i]) * matrix.stride)
                       : uint4{0, 0, 0, 0};
        }
        uint32_t high[4] = {}, low[4] = {};
        const auto split = [&](const float* from, int i) {
            split_pair(*reinterpret_cast<const float2*>(from + step * kDepth), high[i], low[i]);
        };
        if (g < places) {
            split(low_row, 0);
            split(low_row + 8, 2);
        }
        if (g + 8 < places) {
            split(high_row, 1);
            split(high_row + 8, 3);
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const auto word = [&](const uint4& v) { return j < 2 ? v.x : j < 4 ? v.y : j < 6 ? v.z : v.w; };
            const unsigned halves = j % 2 ? 0x7632u : 0x5410u;
            const uint32_t b0 = __byte_perm(word(w[0]), word(w[1]), halves);
            const uint32_t b1 = __byte_perm(word(w[2]), word(w[3]), halves);
            multiply_tile(sum[j], high, b0, b1);
            multiply_tile(sum[j], low, b0, b1);
        }
    }
    const int result = column0 + 16 * t;  // sixteen columns: eight of an even i, eight of the odd one after it
    if (result >= matrix.n) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int place = g + 8 * half;
        if (place >= places) break;
        float4* to = reinterpret_cast<float4*>(out + place * matrix.width() + group * matrix.n + result);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int c = 2 * half + i;
            to[2 * i] = make_float4(sum[0][c], sum[1][c], sum[2][c], sum[3][c]);
            to[2 * i + 1] = make_float4(sum[4][c], sum[5][c], sum[6][c], sum[7][c]);
        }
    }
}

template <int capacity>
__device__ inline void warp_product_float(const Matrix& matrix, int group, int column0, int first, int stop,
                                          const float* input, int input_stride, float* out, int places) {
    const int half = lane_id() >> 4, column = column0 + 4 * (lane_id() & 15);
    const float* weights =
        reinterpret_cast<const float*>(matrix.at.at) + static_cast<int64_t>(group) * matrix.group_step + column;
    const float* rows = input + group * matrix.input_step;
    float sum[capacity][4] = {};
    for (int step = first; step < stop; ++step) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const int k = step * kDepth + 8 * half + 4 * part;
            float4 w[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                w[i] = column < matrix.n && k + i < matrix.k
                           ? __ldg(reinterpret_cast<const float4*>(
                                 weights + static_cast<int64_t>(k + i) * matrix.stride))
                           : make_float4(0, 0, 0, 0);
            }
#pragma unroll
            for (int place = 0; place < capacity; ++place) {
                if (place >= places) break;
                const float4 a = *reinterpret_cast<const float4*>(rows + place * input_stride + k);
                sum[place][0] += a.x * w[0].x + a.y * w[1].x + a.z * w[2].x + a.w * w[3].x;
                sum[place][1] += a.x * w[0].y + a.y * w[1].y + a.z * w[2].y + a.w * w[3].y;
                sum[place][2] += a.x * w[0].z + a.y * w[1].z + a.z * w[2].z + a.w * w[3].z;
                sum[place][3] += a.x * w[0].w + a.y * w[1].w + a.z * w[2].w + a.w * w[3].w;
            }
        }
    }
#pragma unroll
    for (int place = 0; place < capacity; ++place) {
        if (place >= places) break;
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[place][i] += __shfl_xor_sync(kWholeWarp, sum[place][i], 16);
        if (half == place % 2 && column < matrix.n) {
            *reinterpret_cast<float4*>(out + place * matrix.width() + group * matrix.n + column) =
                make_float4(sum[place][0], sum[place][1], sum[place][2], sum[place][3]);
        }
    }
}

__device__ inline void warp_product(const Matrix& matrix, int group, int column0, int first, int stop,
                                    const float* input, int input_stride, float* out, int places) {
    if (matrix.at.bfloat16) {
        warp_product_bfloat16(matrix, group, column0, first, stop, input, input_stride, out, places);
    } else if (places <= kTile) {
        warp_product_float<kTile>(matrix, group, column0, first, stop, input, input_stride, out, places);
    } else {
        warp_product_float<kChunk>(matrix, group, column0, first, stop, input, input_stride, out, places);
    }
}

// input [places][input_stride] times the matrix, all in shared memory; the block's warps share columns, and depth where
// there are more warps than columns. The input's columns are finite up to a multiple of 16. Offsets, not pointers: they
// tell the compiler that it is shared memory. Syncs before and after are the caller's.
__device__ __attribute__((noinline)) Partial multiply(Matrix matrix, int input, int input_stride, int out, int places) {
    const int tiles = (matrix.n + kColumns - 1) / kColumns * matrix.groups;
    const int steps = (matrix.k + kDepth - 1) / kDepth;
    const int slices = min(max(warp_count() / tiles, 1), steps);
    const Partial result{shared_floats() + out, slices, places, matrix.width()};
    for (int item = warp_id(); item < tiles * slices; item += warp_count()) {
        const int slice = item / tiles, tile = item % tiles;
        const int group = tile % matrix.groups, column0 = tile / matrix.groups * kColumns;
        warp_product(matrix, group, column0, steps * slice / slices, steps * (slice + 1) / slices,
                     shared_floats() + input, input_stride,
                     shared_floats() + out + slice * places * matrix.width(), places);
    }
    return result;
}

}  // namespace rate
