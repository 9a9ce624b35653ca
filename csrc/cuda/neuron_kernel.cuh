// One thread owns neighbouring neurons: their state stays in registers through all steps, each current is read once in
// 16-byte loads, or each byte of a train in a word of four, and a byte a neuron is written for every eight steps.
#pragma once

#include "../core/models.h"
#include "load.cuh"

namespace snn::cuda {

// Sets one member of `Width` neurons to their values of an operand.
template <int Width>
__device__ __forceinline__ void load_member(Neuron (&neuron)[Width], float Neuron::* member, const Operand& operand,
                                            int64_t first, int count) {
    float values[Width];
    load_operand(operand, first, count, values);
#pragma unroll
    for (int i = 0; i < Width; ++i) neuron[i].*member = values[i];
}

// A dense operand of its own.
__device__ __forceinline__ Operand dense(const float* data, int64_t neurons) { return {data, 1, neurons}; }

template <class Model, int Width>
__device__ __forceinline__ void load_neurons(Neuron (&neuron)[Width], const NeuronProblem& p, int64_t first,
                                             int count) {
    load_member(neuron, &Neuron::v, p.v, first, count);
    load_member(neuron, &Neuron::scale, p.scale, first, count);
    load_member(neuron, &Neuron::a, p.parameter[0], first, count);
    load_member(neuron, &Neuron::b, p.parameter[1], first, count);
    load_member(neuron, &Neuron::offset_x, p.input[0].offset, first, count);
    if (Model::decodes) load_member(neuron, &Neuron::x, p.input[0].x, first, count);
    if (Model::momentum) load_member(neuron, &Neuron::m_v, dense(p.m, p.neurons), first, count);
    if (Model::momentum) load_member(neuron, &Neuron::m_x, dense(p.input[0].m, p.neurons), first, count);
    if (Model::inputs == 2) {
        load_member(neuron, &Neuron::y, p.input[1].x, first, count);
        load_member(neuron, &Neuron::offset_y, p.input[1].offset, first, count);
        if (Model::momentum) load_member(neuron, &Neuron::m_y, dense(p.input[1].m, p.neurons), first, count);
    }
}

template <class Model, int Width>
__device__ __forceinline__ void store_neurons(const Neuron (&neuron)[Width], const NeuronProblem& p, int64_t first,
                                              int count) {
#pragma unroll
    for (int i = 0; i < Width; ++i) {
        if (i >= count) break;
        p.v_out[first + i] = neuron[i].v;
        if (Model::decodes) p.input[0].x_out[first + i] = neuron[i].x;
        if (Model::momentum) p.m[first + i] = neuron[i].m_v;
        if (Model::momentum) p.input[0].m[first + i] = neuron[i].m_x;
        if (Model::inputs == 2) p.input[1].x_out[first + i] = neuron[i].y;
        if (Model::inputs == 2 && Model::momentum) p.input[1].m[first + i] = neuron[i].m_y;
    }
}

// What a thread's neurons receive in eight steps, dense currents of a type. The kernel's parameters are handed to each
// load: kept, addresses and strides would take registers from the state.
template <class Current>
struct Received {
    static constexpr int kWidth = Pack<Current>::width;

    __device__ __forceinline__ void begin(const Input&, int64_t, int) {}
    __device__ __forceinline__ void load(const Input& input, int64_t t, int s, int64_t first, int count, bool aligned) {
        current[s] =
            load_currents(static_cast<const Current*>(input.current) + (t + s) * input.stride + first, count, aligned);
    }
    __device__ __forceinline__ float at(int s, int i) const { return to_float(current[s].value[i]); }

    static bool can_vectorise(const Input& input) {
        return aligned_to(input.current, 16) && input.stride % kWidth == 0;
    }

    Pack<Current> current[kStepsPerByte];
};

// The spikes of a train, each worth an amplitude.
struct Train {};

template <>
struct Received<Train> {
    static constexpr int kWidth = kWord;

    __device__ __forceinline__ void begin(const Input& input, int64_t first, int count) {
        load_operand(input.amplitude, first, count, amplitude);
    }
    __device__ __forceinline__ void load(const Input& input, int64_t t, int s, int64_t first, int count, bool aligned) {
        if (s == 0) load_bytes(input.train + t / kStepsPerByte * input.stride + first, byte, count, aligned);
    }
    __device__ __forceinline__ float at(int s, int i) const { return weighed(byte[i], s, amplitude[i]); }

    static bool can_vectorise(const Input& input) {
        return aligned_to(input.train, kWidth) && input.stride % kWidth == 0;
    }

    float amplitude[kWidth];
    uint32_t byte[kWidth];
};

template <class Model, class Current>
__global__ void __launch_bounds__(kThreads, 2) neuron_kernel(const NeuronProblem p, const bool aligned) {
    constexpr int width = Received<Current>::kWidth, arity = Model::inputs;
    const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * width;
    if (first >= p.neurons) return;
    const int count = p.neurons - first < width ? static_cast<int>(p.neurons - first) : width;
    Neuron neuron[width];
    load_neurons<Model>(neuron, p, first, count);
    Received<Current> received[arity];
#pragma unroll
    for (int k = 0; k < arity; ++k) received[k].begin(p.input[k].received, first, count);

    for (int64_t t = 0; t < p.timesteps; t += kStepsPerByte) {
        const int steps = p.timesteps - t < kStepsPerByte ? static_cast<int>(p.timesteps - t) : kStepsPerByte;
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)  // all loads of a byte group in flight before the first use
#pragma unroll
            for (int k = 0; k < arity; ++k)
                if (s < steps) received[k].load(p.input[k].received, t, s, first, count, aligned);
        uint32_t byte[width] = {};
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s) {
            if (s >= steps) break;
            const Step at = {__ldg(p.eta + t + s), p.momentum, p.nesterov ? 1.f : 0.f};
#pragma unroll
            for (int i = 0; i < width; ++i) {
                const bool spike = Model::step(neuron[i], received[0].at(s, i), received[arity - 1].at(s, i), at);
                byte[i] |= spike ? 1u << s : 0u;
            }
        }
        store(p.bytes + t / kStepsPerByte * p.neurons + first, byte, count, aligned);
    }
    store_neurons<Model>(neuron, p, first, count);
}

// Whether every thread's currents and bytes can be moved whole.
template <class Current>
bool can_vectorise(const NeuronProblem& p) {
    constexpr int width = Received<Current>::kWidth;
    bool fits = p.neurons % width == 0 && aligned_to(p.bytes, width);
    for (int k = 0; k < p.arity; ++k) fits = fits && Received<Current>::can_vectorise(p.input[k].received);
    return fits;
}

template <class Model, class Current>
void launch_neuron(const NeuronProblem& problem, cudaStream_t stream) {
    const int64_t neurons_per_block = int64_t{kThreads} * Received<Current>::kWidth;
    const int64_t blocks = (problem.neurons + neurons_per_block - 1) / neurons_per_block;
    launch("neuron", neuron_kernel<Model, Current>, blocks, stream, problem, can_vectorise<Current>(problem));
}

template <class Current, class... Model>
void launch_model(ModelList<Model...>, const NeuronProblem& problem, cudaStream_t stream) {
    using Launch = void (*)(const NeuronProblem&, cudaStream_t);
    static const Launch by_model[] = {launch_neuron<Model, Current>...};
    by_model[problem.model](problem, stream);
}

// Defined once per type of current, each in a translation unit of its own so that they compile in parallel.
template <class Current>
void neuron_by_model(const NeuronProblem& problem, cudaStream_t stream) {
    launch_model<Current>(Models{}, problem, stream);
}

extern template void neuron_by_model<float>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<__half>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<__nv_bfloat16>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<Train>(const NeuronProblem&, cudaStream_t);

}  // namespace snn::cuda
