// Neurons that see all steps at once: a thread owns the neurons of one 16-byte load.
#include "parallel.h"

#include "../core/parallel.h"
#include "load.cuh"

namespace snn {
namespace cuda {
namespace {

template <class Current>
struct View {
    static constexpr int width = Pack<Current>::width;
    const ParallelProblem& p;
    int64_t first;
    int count;
    bool aligned;

    __device__ Pack<Current> current(int64_t t) const {
        return load_currents(static_cast<const Current*>(p.input.current) + t * p.input.stride + first, count, aligned);
    }
    __device__ void store_spikes(int64_t t, const uint32_t (&byte)[width]) const {
        store(p.bytes + t / kStepsPerByte * p.neurons + first, byte, count, aligned);
    }
};

template <class Current>
__device__ void count(const View<Current>& view) {
    constexpr int width = View<Current>::width;
    const ParallelProblem& p = view.p;
    float level[width] = {}, threshold[width], shift[width];
    for (int64_t t = 0; t < p.timesteps; ++t) {
        const Pack<Current> current = view.current(t);
#pragma unroll
        for (int i = 0; i < width; ++i) level[i] += to_float(current.value[i]);
    }
    load_operand(p.threshold, view.first, view.count, threshold);
    load_operand(p.shift, view.first, view.count, shift);
    const auto steps = static_cast<float>(p.timesteps);
    int32_t spikes[width];
#pragma unroll
    for (int i = 0; i < width; ++i)
        spikes[i] = spike_count(spike_level(level[i], threshold[i], shift[i], steps), steps);
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        uint32_t byte[width];
#pragma unroll
        for (int i = 0; i < width; ++i) byte[i] = leading_spikes(spikes[i], static_cast<int32_t>(t));
        view.store_spikes(t, byte);
    }
}

// The currents are read again for every step: a tile's stay in the cache.
template <class Current>
__device__ void mix(const View<Current>& view) {
    constexpr int width = View<Current>::width;
    const ParallelProblem& p = view.p;
    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        uint32_t byte[width] = {};
        for (int s = 0; s < kStepsPerByte && t + s < p.timesteps; ++s) {
            float sum[width] = {};
            for (int64_t from = 0; from < p.timesteps; ++from) {
                const float weight = __ldg(p.weight + (t + s) * p.timesteps + from);
                const Pack<Current> current = view.current(from);
#pragma unroll
                for (int i = 0; i < width; ++i) sum[i] = mixed(sum[i], weight, to_float(current.value[i]));
            }
            const float threshold = __ldg(p.step_threshold + t + s);
#pragma unroll
            for (int i = 0; i < width; ++i) byte[i] |= sum[i] >= threshold ? 1u << s : 0u;
        }
        view.store_spikes(t, byte);
    }
}

template <class Current, bool Mixes>
__global__ void __launch_bounds__(kThreads) parallel_kernel(const ParallelProblem p, const bool aligned) {
    constexpr int width = Pack<Current>::width;
    const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * width;
    if (first >= p.neurons) return;
    const int count_here = p.neurons - first < width ? static_cast<int>(p.neurons - first) : width;
    const View<Current> view{p, first, count_here, aligned};
    if (Mixes) {
        mix(view);
    } else {
        count(view);
    }
}

template <class Current>
void run(const ParallelProblem& p, cudaStream_t stream) {
    constexpr int width = Pack<Current>::width;
    const int64_t per_block = int64_t{kThreads} * width;
    const int64_t blocks = (p.neurons + per_block - 1) / per_block;
    const bool aligned = p.neurons % width == 0 && aligned_to(p.bytes, width) && aligned_to(p.input.current, 16) &&
                         p.input.stride % width == 0;
    const auto kernel = p.weight ? parallel_kernel<Current, true> : parallel_kernel<Current, false>;
    launch("parallel", kernel, blocks, stream, p, aligned);
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
