// Neurons that see all steps at once: a thread owns a run of neurons.
#include "parallel.h"

#include "../core/parallel.h"
#include "load.cuh"

namespace snn {
namespace cuda {
namespace {

template <class Current, int Run>
__device__ void count(const ParallelProblem& p, int64_t first) {
    float level[Run] = {}, threshold[Run], shift[Run];
    for_each_group(p.timesteps, [&](auto group, int64_t t) {
        constexpr int steps = decltype(group)::value;
        Pack<Current, Run> current[kStepsPerByte];
        load_currents<steps>(p.input, t, first, current);
#pragma unroll
        for (int s = 0; s < steps; ++s)
#pragma unroll
            for (int i = 0; i < Run; ++i) level[i] += to_float(current[s].value[i]);
    });
    load_operand(p.threshold, first, threshold);
    load_operand(p.shift, first, shift);
    const auto steps = static_cast<float>(p.timesteps);
    int32_t spikes[Run];
#pragma unroll
    for (int i = 0; i < Run; ++i) spikes[i] = spike_count(spike_level(level[i], threshold[i], shift[i], steps), steps);
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        uint32_t byte[Run];
#pragma unroll
        for (int i = 0; i < Run; ++i) byte[i] = leading_spikes(spikes[i], static_cast<int32_t>(t));
        store(p.bytes + t / kStepsPerByte * p.neurons + first, byte);
    }
}

// The currents are read again for every eight steps, whose sums are made together.
template <class Current, int Run>
__device__ void mix(const ParallelProblem& p, int64_t first) {
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        const float* weight[kStepsPerByte];  // past the last step, that again
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            weight[s] = p.weight + (t + s < p.timesteps ? t + s : p.timesteps - 1) * p.timesteps;
        float sum[kStepsPerByte][Run] = {};
        for_each_group(p.timesteps, [&](auto group, int64_t u) {
            constexpr int steps = decltype(group)::value;
            const Current* from = static_cast<const Current*>(p.input.current) + u * p.input.stride + first;
            Pack<Current, Run> current[steps];
#pragma unroll
            for (int i = 0; i < steps; ++i) current[i].set(__ldg(current[i].at(from + i * p.input.stride)));
#pragma unroll
            for (int from_step = 0; from_step < steps; ++from_step)
#pragma unroll
                for (int s = 0; s < kStepsPerByte; ++s)
#pragma unroll
                    for (int i = 0; i < Run; ++i)
                        sum[s][i] =
                            mixed(sum[s][i], __ldg(weight[s] + u + from_step), to_float(current[from_step].value[i]));
        });
        uint32_t byte[Run] = {};
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s) {
            if (t + s >= p.timesteps) break;
            const float threshold = __ldg(p.step_threshold + t + s);
#pragma unroll
            for (int i = 0; i < Run; ++i) byte[i] |= sum[s][i] >= threshold ? 1u << s : 0u;
        }
        store(p.bytes + t / kStepsPerByte * p.neurons + first, byte);
    }
}

template <class Current, int Run, bool Mixes>
__global__ void __launch_bounds__(kThreads) parallel_kernel(const ParallelProblem p) {
    const int64_t first = first_neuron(Run);
    if (first >= p.neurons) return;
    if (Mixes) {
        mix<Current, Run>(p, first);
    } else {
        count<Current, Run>(p, first);
    }
}

template <class Current, int Run>
void run(const ParallelProblem& p, cudaStream_t stream) {
    const auto kernel = p.weight ? parallel_kernel<Current, Run, true> : parallel_kernel<Current, Run, false>;
    launch("parallel", kernel, blocks_of(p.neurons, Run), stream, p);
}

template <class Current>
void run(const ParallelProblem& p, cudaStream_t stream) {
    const bool runs = p.neurons % kRun == 0 && aligned_to(p.bytes, kRun) && in_runs(p.input);
    return runs ? run<Current, kRun>(p, stream) : run<Current, 1>(p, stream);
}

}  // namespace
}  // namespace cuda

void parallel_cuda(const ParallelProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    switch (problem.input.dtype) {
        case DType::float32: return cuda::run<float>(problem, cuda_stream);
        case DType::float16: return cuda::run<__half>(problem, cuda_stream);
        case DType::bfloat16: return cuda::run<__nv_bfloat16>(problem, cuda_stream);
    }
}

}  // namespace snn
