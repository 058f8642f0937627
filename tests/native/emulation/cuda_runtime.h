// CUDA C++ on a CPU, for tests: csrc/cuda compiles against this header as plain C++ and runs block by block.
//
// Every thread of a block is a fiber with its own stack. A fiber runs until it meets a barrier (of its block, or of its
// warp: a shuffle, a tensor-core product), then the next one runs. RATE_EMULATED_ORDER says in which order: "forward",
// "reverse", or a number that seeds a random one. What a kernel computes must not depend on it. A barrier that not all
// threads reach is reported, and shared memory holds NaN before a block starts.
//
// What it does not show: that memory accesses of different blocks do not race, and what the hardware makes of it all.

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

// --- Types -----------------------------------------------------------------------------------------------------------

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// --- Threads ---------------------------------------------------------------------------------------------------------

extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the fiber that runs

namespace emulation {

void block_barrier();
// All lanes of the warp put `bytes` bytes and get everyone's: 32 pieces of 16 bytes.
const unsigned char* exchange(const void* piece, size_t bytes);
void run_grid(dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulation

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp() { emulation::exchange(nullptr, 0); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    const unsigned char* all = emulation::exchange(&value, sizeof(T));
    std::memcpy(&value, all + 16 * (lane & 31), sizeof(T));
    return value;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step) {
    return __shfl_sync(mask, value, static_cast<int>(threadIdx.x & 31) ^ step);
}

// --- Functions -------------------------------------------------------------------------------------------------------

template <typename T>
T __ldg(const T* at) {
    return *at;
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = (static_cast<uint64_t>(b) << 32) | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
        result |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << 8 * i;
    }
    return result;
}
inline int32_t atomicAdd(int32_t* at, int32_t value) { return std::exchange(*at, *at + value); }
inline int32_t atomicMin(int32_t* at, int32_t value) { return std::exchange(*at, *at < value ? *at : value); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
using std::isfinite;

// The tensor core's m16n8k16 of bfloat16, by the fragments of the PTX manual.
void emulated_multiply_tile(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

// --- The host's side -------------------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
using cudaStream_t = struct EmulatedStream*;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

namespace emulation {
extern int multiprocessors, shared_limit;  // of the device that is pretended
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t status) { return status ? "invalid value" : "success"; }
inline const char* cudaGetErrorName(cudaError_t status) { return status ? "cudaErrorInvalidValue" : "cudaSuccess"; }
inline cudaError_t cudaGetDeviceCount(int* devices) {
    *devices = 1;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    *value = which == cudaDevAttrMultiProcessorCount ? emulation::multiprocessors : emulation::shared_limit;
    return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
    std::memset(at, value, bytes);
    return cudaSuccess;
}
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const dim3 threads = config->blockDim, blocks = config->gridDim;
    if (threads.y != 1 || threads.z != 1 || threads.x == 0 || threads.x > 1024 || !blocks.x || !blocks.y ||
        !blocks.z || blocks.y > 65535 || blocks.z > 65535 ||
        config->dynamicSmemBytes > static_cast<size_t>(emulation::shared_limit)) {
        return cudaErrorInvalidValue;
    }
    emulation::run_grid(blocks, threads.x, config->dynamicSmemBytes,
                        [&] { kernel(static_cast<Parameters>(arguments)...); });
    return cudaSuccess;
}
