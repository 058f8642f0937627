// What lets one header serve C++ and CUDA.
//
// Always inlined: a header is compiled for several instruction sets into one module, and a function that is emitted
// once for all of them might be the one built for instructions the machine lacks.

#pragma once

#if defined(__CUDACC__)
#define RATE_SHARED __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define RATE_SHARED inline __attribute__((always_inline))
#else
#define RATE_SHARED inline
#endif
