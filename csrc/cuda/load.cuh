// How threads read currents and operands and write bytes, and how kernels are launched.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "../core/macros.h"
#include "../problem.h"

namespace snn::SNN_ISA {}

namespace snn::cuda {

using namespace snn::SNN_ISA;

constexpr int kThreads = 128;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// 16 bytes of currents.
template <class Current>
struct alignas(16) Pack {
    static constexpr int width = 16 / sizeof(Current);
    Current value[width];
};

// Reads `Width` neighbouring neurons of a broadcast operand with one division for all of them.
template <int Width>
__device__ __forceinline__ void load_operand(const Operand& operand, int64_t n, int count, float (&out)[Width]) {
    if (operand.period == 1) {
        const float value = __ldg(operand.data);
#pragma unroll
        for (int i = 0; i < Width; ++i) out[i] = value;
        return;
    }
    int64_t block = n, within = 0;
    if (operand.inner != 1) {
        block = n / operand.inner;
        within = n - block * operand.inner;
    }
    int64_t phase = block < operand.period ? block : block % operand.period;
#pragma unroll
    for (int i = 0; i < Width; ++i) {
        out[i] = i < count ? __ldg(operand.data + phase) : 0.f;
        if (++within >= operand.inner) {
            within = 0;
            if (++phase == operand.period) phase = 0;
        }
    }
}

template <class Current>
__device__ __forceinline__ Pack<Current> load_currents(const Current* from, int count, bool aligned) {
    Pack<Current> pack;
    if (aligned) {
        const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(from));
        memcpy(&pack, &raw, sizeof raw);
    } else {
#pragma unroll
        for (int i = 0; i < Pack<Current>::width; ++i)
            if (i < count) pack.value[i] = from[i];
    }
    return pack;
}

__device__ __forceinline__ void store_four(uint8_t* to, const uint32_t* byte) {
    *reinterpret_cast<uint32_t*>(to) = byte[0] | byte[1] << 8 | byte[2] << 16 | byte[3] << 24;
}

__device__ __forceinline__ void store_four(float* to, const float* from) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

// Writes a thread's neighbouring neurons, those that exist.
template <class To, class From, int Width>
__device__ __forceinline__ void store(To* to, const From (&from)[Width], int count, bool aligned) {
    if (aligned) {
#pragma unroll
        for (int i = 0; i < Width; i += 4) store_four(to + i, from + i);
        return;
    }
#pragma unroll
    for (int i = 0; i < Width; ++i)
        if (i < count) to[i] = static_cast<To>(from[i]);
}

constexpr int kWord = 4;

// Four bytes, those that exist.
__device__ __forceinline__ void load_bytes(const uint8_t* from, uint32_t (&to)[kWord], int count, bool aligned) {
    const uint32_t raw = aligned ? *reinterpret_cast<const uint32_t*>(from) : 0;
#pragma unroll
    for (int i = 0; i < kWord; ++i) to[i] = aligned ? raw >> 8 * i & 255 : i < count ? from[i] : 0u;
}

inline bool aligned_to(const void* pointer, size_t size) { return reinterpret_cast<uintptr_t>(pointer) % size == 0; }

// Runs a kernel in `blocks` blocks of kThreads threads.
template <class... Parameter>
void launch(const char* what, void (*kernel)(Parameter...), int64_t blocks, cudaStream_t stream,
            const std::common_type_t<Parameter>&... arguments) {
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = dim3(static_cast<unsigned>(blocks));
    configuration.blockDim = dim3(kThreads);
    configuration.stream = stream;
    const cudaError_t error = cudaLaunchKernelEx(&configuration, kernel, arguments...);
    if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace snn::cuda
