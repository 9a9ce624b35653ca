// One thread owns `Width` neighbouring neurons: their state stays in registers through all steps, each current is read
// once in 16-byte loads, and a byte a neuron is written for every eight steps.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <stdexcept>
#include <string>

#include "../core/signgd.h"
#include "../problem.h"

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

template <class H, class Current>
__global__ void __launch_bounds__(kThreads, 2) signgd_kernel(const SignGDProblem p, const bool aligned) {
    constexpr int width = Pack<Current>::width, arity = H::arity;
    const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * width;
    if (first >= p.neurons) return;
    const int count = p.neurons - first < width ? static_cast<int>(p.neurons - first) : width;

    float x[arity][width], offset[arity][width], v[width], scale[width], a[width], b[width];
    load_operand(p.v, first, count, v);
    load_operand(p.scale, first, count, scale);
    load_operand(p.parameter[0], first, count, a);
    load_operand(p.parameter[1], first, count, b);
#pragma unroll
    for (int k = 0; k < arity; ++k) {
        load_operand(p.input[k].x, first, count, x[k]);
        load_operand(p.input[k].offset, first, count, offset[k]);
    }

    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        const int steps = p.timesteps - t < kStepsPerByte ? static_cast<int>(p.timesteps - t) : kStepsPerByte;
        Pack<Current> current[arity][kStepsPerByte];  // all loads of a byte group in flight before the first use
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
#pragma unroll
            for (int k = 0; k < arity; ++k)
                if (s < steps)
                    current[k][s] = load_currents(
                        static_cast<const Current*>(p.input[k].current) + (t + s) * p.input[k].step_stride + first,
                        count, aligned);
        uint32_t byte[width] = {};
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s) {
            if (s >= steps) break;
            const float eta = __ldg(p.eta + t + s);
#pragma unroll
            for (int i = 0; i < width; ++i) {
#pragma unroll
                for (int k = 0; k < arity; ++k)
                    x[k][i] = decoded_input(x[k][i], to_float(current[k][s].value[i]), offset[k][i], eta);
                const bool spike = fires(v[i], H::at(x[0][i], x[arity - 1][i], a[i], b[i]));
                v[i] = next_estimate(v[i], eta, scale[i], spike);
                byte[i] |= spike ? 1u << s : 0u;
            }
        }
        uint8_t* bytes = p.bytes + t / kStepsPerByte * p.neurons + first;
        if (aligned) {
#pragma unroll
            for (int i = 0; i < width; i += 4)
                *reinterpret_cast<uint32_t*>(bytes + i) =
                    byte[i] | byte[i + 1] << 8 | byte[i + 2] << 16 | byte[i + 3] << 24;
        } else {
#pragma unroll
            for (int i = 0; i < width; ++i)
                if (i < count) bytes[i] = static_cast<uint8_t>(byte[i]);
        }
    }

#pragma unroll
    for (int i = 0; i < width; ++i) {
        if (i >= count) break;
        p.v_out[first + i] = v[i];
#pragma unroll
        for (int k = 0; k < arity; ++k) p.input[k].x_out[first + i] = x[k][i];
    }
}

inline bool aligned_to(const void* pointer, size_t size) { return reinterpret_cast<uintptr_t>(pointer) % size == 0; }

// Whether every thread's currents and bytes can be moved whole.
template <class Current>
bool can_vectorise(const SignGDProblem& p) {
    constexpr int width = Pack<Current>::width;
    bool fits = p.neurons % width == 0 && aligned_to(p.bytes, width);
    for (int k = 0; k < p.arity; ++k)
        fits = fits && aligned_to(p.input[k].current, 16) && p.input[k].step_stride % width == 0;
    return fits;
}

template <class H, class Current>
void launch_signgd(const SignGDProblem& problem, cudaStream_t stream) {
    const int64_t neurons_per_block = int64_t{kThreads} * Pack<Current>::width;
    const int64_t blocks = (problem.neurons + neurons_per_block - 1) / neurons_per_block;
    signgd_kernel<H, Current>
        <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(problem, can_vectorise<Current>(problem));
}

// Defined once per type of current, each in a translation unit of its own so that they compile in parallel.
template <class Current>
void signgd_by_activation(const SignGDProblem& problem, cudaStream_t stream) {
    using Launch = void (*)(const SignGDProblem&, cudaStream_t);
#define SNN_LAUNCH(name, expression) launch_signgd<activation::name##_fn, Current>,
    static const Launch by_activation[] = {SNN_ACTIVATIONS(SNN_LAUNCH)};
#undef SNN_LAUNCH
    by_activation[problem.activation](problem, stream);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) throw std::runtime_error(std::string("signgd: ") + cudaGetErrorString(error));
}

extern template void signgd_by_activation<float>(const SignGDProblem&, cudaStream_t);
extern template void signgd_by_activation<__half>(const SignGDProblem&, cudaStream_t);
extern template void signgd_by_activation<__nv_bfloat16>(const SignGDProblem&, cudaStream_t);

}  // namespace snn::cuda
