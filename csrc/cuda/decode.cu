// Decoded inputs after each step: a thread owns those of one 16-byte load of currents, or of a word of a train's bytes.
#include "decode.h"

#include "../core/signgd.h"
#include "load.cuh"

namespace snn {
namespace cuda {
namespace {

// The neurons of a thread.
template <int Width>
struct Decoder {
    const DecodeProblem& p;
    int64_t first;
    int count;
    bool aligned;
    float x[Width], offset[Width];

    __device__ Decoder(const DecodeProblem& p, int64_t first, bool aligned)
        : p(p),
          first(first),
          count(p.neurons - first < Width ? static_cast<int>(p.neurons - first) : Width),
          aligned(aligned) {
        load_operand(p.x, first, count, x);
        load_operand(p.offset, first, count, offset);
    }

    // Makes step t with current(i) of the thread's neuron i.
    template <class F>
    __device__ __forceinline__ void step(int64_t t, F current) {
        const float eta = __ldg(p.eta + t);
#pragma unroll
        for (int i = 0; i < Width; ++i) x[i] = decoded(x[i], eta, current(i), offset[i]);
        store(p.out + t * p.neurons + first, x, count, aligned);
    }
};

__device__ __forceinline__ int64_t thread_number() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

template <class Current>
__global__ void __launch_bounds__(kThreads) decode_kernel(const DecodeProblem p, const bool aligned) {
    constexpr int width = Pack<Current>::width;
    const int64_t first = thread_number() * width;
    if (first >= p.neurons) return;
    Decoder<width> decoder(p, first, aligned);
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        const int steps = p.timesteps - t < kStepsPerByte ? static_cast<int>(p.timesteps - t) : kStepsPerByte;
        Pack<Current> current[kStepsPerByte];  // all loads in flight before the first store
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            if (s < steps)
                current[s] =
                    load_currents(static_cast<const Current*>(p.input.current) + (t + s) * p.input.stride + first,
                                  decoder.count, aligned);
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            if (s < steps) decoder.step(t + s, [&](int i) { return to_float(current[s].value[i]); });
    }
}

__global__ void __launch_bounds__(kThreads) decode_train_kernel(const DecodeProblem p, const bool aligned) {
    const int64_t first = thread_number() * kWord;
    if (first >= p.neurons) return;
    Decoder<kWord> decoder(p, first, aligned);
    float amplitude[kWord];
    load_operand(p.input.amplitude, first, decoder.count, amplitude);
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        uint32_t byte[kWord];
        load_bytes(p.input.train + t / kStepsPerByte * p.input.stride + first, byte, decoder.count, aligned);
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            if (t + s < p.timesteps) decoder.step(t + s, [&](int i) { return weighed(byte[i], s, amplitude[i]); });
    }
}

using Kernel = void (*)(DecodeProblem, bool);

void run(Kernel kernel, int width, const DecodeProblem& p, cudaStream_t stream) {
    const int64_t per_block = int64_t{kThreads} * width;
    const bool aligned = p.neurons % width == 0 && p.input.stride % width == 0 && aligned_to(p.out, 16) &&
                         aligned_to(p.input.current, 16) && aligned_to(p.input.train, kWord);
    launch("decode", kernel, (p.neurons + per_block - 1) / per_block, stream, p, aligned);
}

template <class Current>
void run(const DecodeProblem& p, cudaStream_t stream) {
    run(decode_kernel<Current>, Pack<Current>::width, p, stream);
}

}  // namespace
}  // namespace cuda

void decode_cuda(const DecodeProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    if (problem.input.train) return cuda::run(cuda::decode_train_kernel, cuda::kWord, problem, cuda_stream);
    switch (problem.input.dtype) {
        case DType::float32: return cuda::run<float>(problem, cuda_stream);
        case DType::float16: return cuda::run<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::run<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
