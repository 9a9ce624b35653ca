// What an op hands to a kernel: plain pointers and sizes, the same for the CPU and for CUDA.
#pragma once

#include <cstdint>

namespace snn {

enum class DType : int { float32 = 0, float16 = 1, bfloat16 = 2 };

constexpr int kMaxInputs = 2;
constexpr int kParameters = 2;
constexpr int kStepsPerByte = 8;

// A per-neuron value that broadcasts: neuron n reads data[(n / inner) % period].
struct Operand {
    const float* data;
    int64_t inner;
    int64_t period;
};

// Currents, dense or of a train whose spikes are each worth `amplitude`.
struct Input {
    DType dtype;           // of dense currents
    const void* current;   // [T, N], steps `stride` elements apart, or null
    const uint8_t* train;  // [ceil(T / 8), N], byte groups `stride` apart, or null
    int64_t stride;
    Operand amplitude;
};

struct NeuronInput {
    Input received;  // all inputs of a problem dense and of one type, or all trains
    Operand offset;
    Operand x;     // decoded input before the first step
    float* x_out;  // and after the last
    float* m;      // with momentum: the filtered gradient, read and written
};

struct NeuronProblem {
    int model;  // index into Models
    int arity;  // inputs in use
    int64_t timesteps;
    int64_t neurons;
    const float* eta;
    NeuronInput input[kMaxInputs];
    Operand scale;
    Operand parameter[kParameters];
    Operand v;
    float* v_out;
    float* m;  // with momentum: the filtered gradient of v, read and written
    float momentum;
    bool nesterov;
    uint8_t* bytes;  // [ceil(T / 8), N]
};

// Decoded inputs after each step: x <- x - eta (2 current - offset).
struct DecodeProblem {
    int64_t timesteps;
    int64_t neurons;
    const float* eta;
    Input input;
    Operand offset, x;
    float* out;  // [T, N]
};

// Neurons whose target is a function of their vector: see core/vector.h. Neuron n is element n % length of a vector.
struct VectorProblem {
    int function;  // index into kVectorFunctions
    int64_t timesteps;
    int64_t neurons;
    int64_t length;
    const float* eta;
    float eps;
    Input input;
    Operand offset, scale, a, b, x, v;  // a and b: weight and bias of a norm; a: what softmax keeps
    float* x_out;
    float* v_out;
    uint8_t* bytes;  // [ceil(T / 8), N]
};

constexpr const char* kVectorFunctions[] = {"softmax", "layer_norm", "rms_norm"};

// Neurons that see all steps at once: see core/parallel.h.
struct ParallelProblem {
    Input input;  // dense
    int64_t timesteps;
    int64_t neurons;
    Operand threshold;            // of the counting neuron, like shift
    Operand shift;                // added to the current of every step
    const float* weight;          // [T, T] of the neuron that mixes steps, otherwise null
    const float* step_threshold;  // [T]
    uint8_t* bytes;               // [ceil(T / 8), N]
};

}  // namespace snn
