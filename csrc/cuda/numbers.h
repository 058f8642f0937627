// Arithmetic on the element types: half types are computed with in float32 and rounded once.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace rate {

__device__ inline float sum(float a, float b) { return a + b; }
__device__ inline double sum(double a, double b) { return a + b; }
__device__ inline __nv_bfloat16 sum(__nv_bfloat16 a, __nv_bfloat16 b) {
    return __float2bfloat16(__bfloat162float(a) + __bfloat162float(b));
}
__device__ inline __half sum(__half a, __half b) { return __float2half(__half2float(a) + __half2float(b)); }

}  // namespace rate
