// float16 for the emulation in cuda_runtime.h: the conversions that csrc/cuda uses.

#pragma once

using __half = _Float16;

inline float __half2float(__half x) { return static_cast<float>(x); }
inline __half __float2half(float x) { return static_cast<__half>(x); }
