// Decoded inputs after each step: a thread owns those of a run of neurons.
#include "decode.h"

#include "../core/signgd.h"
#include "load.cuh"

namespace snn {
namespace cuda {
namespace {

template <int Run>
struct Decoder {
    const DecodeProblem& p;
    int64_t first;
    float x[Run], offset[Run];

    __device__ Decoder(const DecodeProblem& p, int64_t first) : p(p), first(first) {
        load_operand(p.x, first, x);
        load_operand(p.offset, first, offset);
    }

    // Makes step t with current(i) of the thread's neuron i.
    template <class F>
    __device__ __forceinline__ void step(int64_t t, F current) {
        const float eta = __ldg(p.eta + t);
#pragma unroll
        for (int i = 0; i < Run; ++i) x[i] = decoded(x[i], eta, current(i), offset[i]);
        store(p.out + t * p.neurons + first, x);
    }
};

template <class Current, int Run>
__global__ void __launch_bounds__(kThreads) decode_kernel(const DecodeProblem p) {
    const int64_t first = first_neuron(Run);
    if (first >= p.neurons) return;
    Decoder<Run> decoder(p, first);
    for_each_group(p.timesteps, [&](auto group, int64_t t) {
        constexpr int steps = decltype(group)::value;
        Pack<Current, Run> current[kStepsPerByte];
        load_currents<steps>(p.input, t, first, current);
#pragma unroll
        for (int s = 0; s < steps; ++s) decoder.step(t + s, [&](int i) { return to_float(current[s].value[i]); });
    });
}

template <int Run>
__global__ void __launch_bounds__(kThreads) decode_train_kernel(const DecodeProblem p) {
    const int64_t first = first_neuron(Run);
    if (first >= p.neurons) return;
    Decoder<Run> decoder(p, first);
    float amplitude[Run];
    load_operand(p.input.amplitude, first, amplitude);
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        const auto bytes = load_bytes<Run>(p.input.train + t / kStepsPerByte * p.input.stride + first);
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            if (t + s < p.timesteps)
                decoder.step(t + s, [&](int i) { return weighed(bytes.value[i], s, amplitude[i]); });
    }
}

using Kernel = void (*)(DecodeProblem);

void run(Kernel of_runs, Kernel of_one, const DecodeProblem& p, cudaStream_t stream) {
    const bool runs = p.neurons % kRun == 0 && aligned_to(p.out, kRun * sizeof(float)) && in_runs(p.input);
    launch("decode", runs ? of_runs : of_one, blocks_of(p.neurons, runs ? kRun : 1), stream, p);
}

template <class Current>
void run(const DecodeProblem& p, cudaStream_t stream) {
    run(decode_kernel<Current, kRun>, decode_kernel<Current, 1>, p, stream);
}

}  // namespace
}  // namespace cuda

void decode_cuda(const DecodeProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    if (problem.input.train)
        return cuda::run(cuda::decode_train_kernel<cuda::kRun>, cuda::decode_train_kernel<1>, problem, cuda_stream);
    switch (problem.input.dtype) {
        case DType::float32: return cuda::run<float>(problem, cuda_stream);
        case DType::float16: return cuda::run<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::run<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
