// One instruction of the tensor cores, and how its operands lie in the lanes of a warp.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace snn::cuda {

// sum += a b for a warp's 16x16 a and 16x8 b of float16 and its 16x8 sum of float32. Lane 4 i + j has, in pairs,
//     a:   (row i, columns 2j, 2j+1), (row i + 8, the same), (row i, columns 2j+8, 2j+9), (row i + 8, the same)
//     b:   (rows 2j, 2j+1, column i), (rows 2j+8, 2j+9, column i)
//     sum: (row i, columns 2j, 2j+1), (row i + 8, the same)
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // Turing: half the columns an instruction
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%8}, {%0, %1, %2, %3};\n"
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%6, %7}, {%9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(__CUDACC__)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    cuda_on_host::multiply_add(sum, a, b0, b1);
#endif
}

}  // namespace snn::cuda
