// One thread owns a run of neurons: their state stays in registers through all steps, each current is read once, those
// of eight steps in flight together, or each byte of a train, and a byte a neuron is written for every eight steps.
#pragma once

#include "../core/models.h"
#include "load.cuh"

namespace snn::cuda {

// Sets one member of a run of neurons to their values of an operand.
template <int Run>
__device__ __forceinline__ void load_member(Neuron (&neuron)[Run], float Neuron::* member, const Operand& operand,
                                            int64_t first) {
    float values[Run];
    load_operand(operand, first, values);
#pragma unroll
    for (int i = 0; i < Run; ++i) neuron[i].*member = values[i];
}

// A dense operand of its own.
__device__ __forceinline__ Operand dense(const float* data, int64_t neurons) { return {data, 1, neurons}; }

template <class Model, int Run>
__device__ __forceinline__ void load_neurons(Neuron (&neuron)[Run], const NeuronProblem& p, int64_t first) {
    load_member(neuron, &Neuron::v, p.v, first);
    load_member(neuron, &Neuron::scale, p.scale, first);
    load_member(neuron, &Neuron::a, p.parameter[0], first);
    load_member(neuron, &Neuron::b, p.parameter[1], first);
    load_member(neuron, &Neuron::offset_x, p.input[0].offset, first);
    if (Model::decodes) load_member(neuron, &Neuron::x, p.input[0].x, first);
    if (Model::momentum) load_member(neuron, &Neuron::m_v, dense(p.m, p.neurons), first);
    if (Model::momentum) load_member(neuron, &Neuron::m_x, dense(p.input[0].m, p.neurons), first);
    if (Model::inputs == 2) {
        load_member(neuron, &Neuron::y, p.input[1].x, first);
        load_member(neuron, &Neuron::offset_y, p.input[1].offset, first);
        if (Model::momentum) load_member(neuron, &Neuron::m_y, dense(p.input[1].m, p.neurons), first);
    }
}

template <int Run>
__device__ __forceinline__ void store_member(const Neuron (&neuron)[Run], float Neuron::* member, float* to) {
    float values[Run];
#pragma unroll
    for (int i = 0; i < Run; ++i) values[i] = neuron[i].*member;
    store(to, values);
}

template <class Model, int Run>
__device__ __forceinline__ void store_neurons(const Neuron (&neuron)[Run], const NeuronProblem& p, int64_t first) {
    store_member(neuron, &Neuron::v, p.v_out + first);
    if (Model::decodes) store_member(neuron, &Neuron::x, p.input[0].x_out + first);
    if (Model::momentum) store_member(neuron, &Neuron::m_v, p.m + first);
    if (Model::momentum) store_member(neuron, &Neuron::m_x, p.input[0].m + first);
    if (Model::inputs == 2) store_member(neuron, &Neuron::y, p.input[1].x_out + first);
    if (Model::inputs == 2 && Model::momentum) store_member(neuron, &Neuron::m_y, p.input[1].m + first);
}

// What a run of neurons receives in a group of steps, dense currents of a type. The kernel's parameters are handed to
// each load: kept, addresses and strides would take registers from the state.
template <class Current, int Run>
struct Received {
    __device__ __forceinline__ void begin(const Input&, int64_t) {}
    template <int Steps>
    __device__ __forceinline__ void load(const Input& input, int64_t t, int64_t first) {
        load_currents<Steps>(input, t, first, current);
    }
    __device__ __forceinline__ float at(int s, int i) const { return to_float(current[s].value[i]); }

    Pack<Current, Run> current[kStepsPerByte];
};

// The spikes of a train, each worth an amplitude.
struct Train {};

template <int Run>
struct Received<Train, Run> {
    __device__ __forceinline__ void begin(const Input& input, int64_t first) {
        load_operand(input.amplitude, first, amplitude);
    }
    template <int Steps>
    __device__ __forceinline__ void load(const Input& input, int64_t t, int64_t first) {
        bytes = load_bytes<Run>(input.train + t / kStepsPerByte * input.stride + first);
        bit = first_bit<Steps>(t);
    }
    __device__ __forceinline__ float at(int s, int i) const { return weighed(bytes.value[i] >> bit, s, amplitude[i]); }

    float amplitude[Run];
    Pack<uint8_t, Run> bytes;
    int bit;
};

// Either, as the problem says: one kernel where four would be seldom used.
struct Any {};

template <int Run>
struct Received<Any, Run> {
    __device__ __forceinline__ void begin(const Input& input, int64_t first) {
        if (input.train) train.begin(input, first);
    }
    template <int Steps>
    __device__ __forceinline__ void load(const Input& input, int64_t t, int64_t first) {
        if (input.train) {
            train.template load<Steps>(input, t, first);
            copy<Steps>(train);
        } else if (input.dtype == DType::float32) {
            load_dense<float, Steps>(input, t, first);
        } else if (input.dtype == DType::float16) {
            load_dense<__half, Steps>(input, t, first);
        } else {
            load_dense<__nv_bfloat16, Steps>(input, t, first);
        }
    }
    __device__ __forceinline__ float at(int s, int i) const { return current[s][i]; }

  private:
    template <class Current, int Steps>
    __device__ __forceinline__ void load_dense(const Input& input, int64_t t, int64_t first) {
        Received<Current, Run> dense;
        dense.template load<Steps>(input, t, first);
        copy<Steps>(dense);
    }
    template <int Steps, class Source>
    __device__ __forceinline__ void copy(const Source& source) {
#pragma unroll
        for (int s = 0; s < Steps; ++s)
#pragma unroll
            for (int i = 0; i < Run; ++i) current[s][i] = source.at(s, i);
    }

    Received<Train, Run> train;
    float current[kStepsPerByte][Run];
};

template <class Model, class Current, int Run>
__global__ void __launch_bounds__(kThreads, 2) neuron_kernel(const NeuronProblem p) {
    constexpr int arity = Model::inputs;
    const int64_t first = first_neuron(Run);
    if (first >= p.neurons) return;
    Neuron neuron[Run];
    load_neurons<Model>(neuron, p, first);
    Received<Current, Run> received[arity];
#pragma unroll
    for (int k = 0; k < arity; ++k) received[k].begin(p.input[k].received, first);

    uint32_t byte[Run] = {};
    for_each_group(p.timesteps, [&](auto group, int64_t t) {
        constexpr int steps = decltype(group)::value;
#pragma unroll
        for (int k = 0; k < arity; ++k) received[k].template load<steps>(p.input[k].received, t, first);
        const int bit = first_bit<steps>(t);
        uint32_t spikes[Run] = {};
#pragma unroll
        for (int s = 0; s < steps; ++s) {
            const Step at = {__ldg(p.eta + t + s), p.momentum, p.nesterov ? 1.f : 0.f};
#pragma unroll
            for (int i = 0; i < Run; ++i) {
                const bool spike = Model::step(neuron[i], received[0].at(s, i), received[arity - 1].at(s, i), at);
                spikes[i] |= spike ? 1u << s : 0u;
            }
        }
#pragma unroll
        for (int i = 0; i < Run; ++i) byte[i] = bit ? byte[i] | spikes[i] << bit : spikes[i];
        store(p.bytes + t / kStepsPerByte * p.neurons + first, byte);
    });
    store_neurons<Model>(neuron, p, first);
}

// Whether threads can own runs of neurons.
inline bool in_runs(const NeuronProblem& p) {
    constexpr size_t size = kRun * sizeof(float);
    bool runs =
        p.neurons % kRun == 0 && aligned_to(p.bytes, kRun) && aligned_to(p.v_out, size) && aligned_to(p.m, size);
    for (const NeuronInput* input = p.input; input < p.input + p.arity; ++input)
        runs = runs && in_runs(input->received) && aligned_to(input->x_out, size) && aligned_to(input->m, size);
    return runs;
}

template <class Model, class Current, int Run>
void launch_neuron(const NeuronProblem& p, cudaStream_t stream) {
    launch("neuron", neuron_kernel<Model, Current, Run>, blocks_of(p.neurons, Run), stream, p);
}

template <class Current, int Run, class... Model>
void launch_model(ModelList<Model...>, const NeuronProblem& problem, cudaStream_t stream) {
    using Launch = void (*)(const NeuronProblem&, cudaStream_t);
    static const Launch by_model[] = {launch_neuron<Model, Current, Run>...};
    by_model[problem.model](problem, stream);
}

// Each defined in a translation unit of its own, so that they compile in parallel.
template <class Current, int Run>
void neuron_by_model(const NeuronProblem& problem, cudaStream_t stream) {
    launch_model<Current, Run>(Models{}, problem, stream);
}

extern template void neuron_by_model<float, kRun>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<__half, kRun>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<__nv_bfloat16, kRun>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<Train, kRun>(const NeuronProblem&, cudaStream_t);
extern template void neuron_by_model<Any, 1>(const NeuronProblem&, cudaStream_t);

}  // namespace snn::cuda
