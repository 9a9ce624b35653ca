// What lets one definition serve host and device code.
#pragma once

#include <cstdint>
#include <cstring>

// Every translation unit names its instruction set, so that inline functions compiled for AVX-512 are never merged
// by the linker with the portable ones.
#ifndef SNN_ISA
#define SNN_ISA portable
#endif

#if defined(__CUDACC__)
#define SNN_FN __host__ __device__ __forceinline__
#else
#define SNN_FN inline __attribute__((always_inline))
#define SNN_INLINE_LAMBDA __attribute__((always_inline))
#endif
