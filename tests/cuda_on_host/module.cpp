// The CUDA kernels where the ops expect those of the CPU.
#include "../../csrc/arguments.h"
#include "../../csrc/cuda/decode.h"
#include "../../csrc/cuda/device.h"
#include "../../csrc/cuda/neuron.h"
#include "../../csrc/cuda/parallel.h"
#include "../../csrc/cuda/vector.h"
#include "cuda_runtime.h"

template <class Problem, void (*Kernel)(const Problem&, void*)>
void without_threads(const Problem& problem, int) {
    Kernel(problem, nullptr);
}

PYBIND11_MODULE(_cuda_on_host, module) {
    using namespace snn;
    define(module, "neuron", neuron_problem, without_threads<NeuronProblem, neuron_cuda>, nullptr);
    define(module, "decode", decode_problem, without_threads<DecodeProblem, decode_cuda>, nullptr);
    define(module, "parallel", parallel_problem, without_threads<ParallelProblem, parallel_cuda>, nullptr);
    define(module, "vector", vector_problem, without_threads<VectorProblem, vector_cuda>, nullptr);
    define(module, "spike_weight", spike_weight_problem, without_threads<SpikeWeightProblem, spike_weight_cuda>,
           nullptr);
    define(module, "spike_current", spike_current_problem, without_threads<SpikeCurrentProblem, spike_current_cuda>,
           nullptr);
    define(module, "spike_event", spike_current_problem, without_threads<SpikeCurrentProblem, spike_event_cuda>,
           nullptr);
    define(module, "spike_neuron", spike_neuron_problem, without_threads<SpikeNeuronProblem, spike_neuron_cuda>,
           nullptr);
    module.def("cuda_refusal", cuda_refusal);
    module.def("last_thread_first", [](bool reverse) { cuda_on_host::last_thread_first = reverse; });
}
