// How threads read currents and operands and write bytes, and how kernels are launched.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <type_traits>

#include "../core/macros.h"
#include "../problem.h"

namespace snn::SNN_ISA {}

namespace snn::cuda {

using namespace snn::SNN_ISA;

constexpr int kThreads = 128;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// A thread has this many neighbouring neurons where addresses and sizes let it move their values together, otherwise
// one. Eight 16-bit currents would fill a load of 16 bytes, but their neurons would take so many registers that fewer
// bytes were in flight on a multiprocessor.
constexpr int kRun = 4;

// A run of values, moved together.
template <class Value, int Run>
struct Pack {
    static constexpr size_t size = Run * sizeof(Value);
    using Raw = std::conditional_t<
        size == 16, uint4,
        std::conditional_t<size == 8, uint2,
                           std::conditional_t<size == 4, uint32_t, std::conditional_t<size == 2, uint16_t, uint8_t>>>>;
    Value value[Run];

    static __device__ __forceinline__ const Raw* at(const Value* from) { return reinterpret_cast<const Raw*>(from); }
    __device__ __forceinline__ void set(Raw raw) { memcpy(value, &raw, size); }
    __device__ __forceinline__ void store(Value* to) const {
        Raw raw;
        memcpy(&raw, value, size);
        *reinterpret_cast<Raw*>(to) = raw;
    }
};

SNN_FN bool aligned_to(const void* pointer, size_t size) { return reinterpret_cast<uintptr_t>(pointer) % size == 0; }

// Reads a run of a broadcast operand with one division for all of it.
template <int Run>
__device__ __forceinline__ void load_operand(const Operand& operand, int64_t n, float (&out)[Run]) {
    if (operand.period == 1) {
        const float value = __ldg(operand.data);
#pragma unroll
        for (int i = 0; i < Run; ++i) out[i] = value;
        return;
    }
    int64_t block = n, within = 0;
    if (operand.inner != 1) {
        block = n / operand.inner;
        within = n - block * operand.inner;
    }
    int64_t phase = block < operand.period ? block : block % operand.period;
    using Values = Pack<float, Run>;
    if (operand.inner == 1 && operand.period % Run == 0 && aligned_to(operand.data, Values::size)) {
        Values values;
        values.set(__ldg(Values::at(operand.data + phase)));
#pragma unroll
        for (int i = 0; i < Run; ++i) out[i] = values.value[i];
        return;
    }
#pragma unroll
    for (int i = 0; i < Run; ++i) {
        out[i] = __ldg(operand.data + phase);
        if (++within >= operand.inner) {
            within = 0;
            if (++phase == operand.period) phase = 0;
        }
    }
}

// Reads a run in each of a number of steps.
template <int Steps, class Current, int Run>
__device__ __forceinline__ void load_currents(const Input& input, int64_t t, int64_t first,
                                              Pack<Current, Run> (&to)[kStepsPerByte]) {
    const Current* from = static_cast<const Current*>(input.current) + t * input.stride + first;
#pragma unroll
    for (int s = 0; s < Steps; ++s) to[s].set(__ldcs(Pack<Current, Run>::at(from + s * input.stride)));
}

template <int Run>
__device__ __forceinline__ Pack<uint8_t, Run> load_bytes(const uint8_t* from) {
    Pack<uint8_t, Run> bytes;
    bytes.set(*bytes.at(from));
    return bytes;
}

// The bit of a byte that a group of steps begins with.
template <int Steps>
__device__ __forceinline__ int first_bit(int64_t t) {
    return Steps < kStepsPerByte ? static_cast<int>(t % kStepsPerByte) : 0;
}

// Calls f(steps, t) for groups of eight steps from step t on, then of four, then of one. Their number is a constant: a
// branch between the loads or the uses of a group would let each load wait for the one before.
template <class F>
__device__ __forceinline__ void for_each_group(int64_t timesteps, F f) {
    int64_t t = 0;
    for (; t + kStepsPerByte <= timesteps; t += kStepsPerByte) f(std::integral_constant<int, kStepsPerByte>{}, t);
    if (t + 4 <= timesteps) f(std::integral_constant<int, 4>{}, t), t += 4;
    for (; t < timesteps; ++t) f(std::integral_constant<int, 1>{}, t);
}

template <class To, class From, int Run>
__device__ __forceinline__ void store(To* to, const From (&from)[Run]) {
    Pack<To, Run> pack;
#pragma unroll
    for (int i = 0; i < Run; ++i) pack.value[i] = static_cast<To>(from[i]);
    pack.store(to);
}

// Whether runs of a thread can be read from what a problem receives.
inline bool in_runs(const Input& input) {
    const size_t size = input.dtype == DType::float32 ? sizeof(float) : sizeof(__half);
    return aligned_to(input.current, kRun * size) && aligned_to(input.train, kRun) && input.stride % kRun == 0;
}

// The blocks of threads with `run` neurons each.
inline int64_t blocks_of(int64_t neurons, int run) {
    const int64_t per_block = int64_t{kThreads} * run;
    return (neurons + per_block - 1) / per_block;
}

// The first neuron of a thread.
__device__ __forceinline__ int64_t first_neuron(int run) {
    return (int64_t{blockIdx.x} * kThreads + threadIdx.x) * run;
}

constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

// Runs a kernel in `blocks` blocks of kThreads threads.
template <class... Parameter>
void launch(const char* what, void (*kernel)(Parameter...), int64_t blocks, cudaStream_t stream,
            const std::common_type_t<Parameter>&... arguments) {
    if (blocks > kMostBlocks)
        throw std::invalid_argument(std::string(what) + ": expected work for at most 2^31 - 1 blocks of threads, got " +
                                    std::to_string(blocks));
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = dim3(static_cast<unsigned>(blocks));
    configuration.blockDim = dim3(kThreads);
    configuration.stream = stream;
    const cudaError_t error = cudaLaunchKernelEx(&configuration, kernel, arguments...);
    if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

}  // namespace snn::cuda
