// A block owns a vector and carries it through all steps; its state lies in the output arrays, which stay in the cache.
#include "vector.h"

#include "../core/signgd.h"
#include "../core/vector.h"
#include "reduce.cuh"

namespace snn {
namespace cuda {
namespace {

// A block's part of an operand: one number, or neighbours. Found once, it takes no division for each element.
class Along {
  public:
    __device__ Along(const Operand& operand, int64_t first)
        : from_(operand.data + first / operand.inner % operand.period),
          stride_(operand.inner == 1 && operand.period != 1) {}
    __device__ __forceinline__ float operator[](int64_t d) const { return __ldg(from_ + d * stride_); }

  private:
    const float* from_;
    int stride_;
};

// What broadcasts to vectors always is.
bool is_along(const Operand& operand, int64_t length) {
    return operand.period == 1 || operand.inner % length == 0 || (operand.inner == 1 && operand.period % length == 0);
}

template <class Current>
__device__ float current_of(const Input& input, const Along&, int64_t t, int64_t n, int64_t) {
    return to_float(static_cast<const Current*>(input.current)[t * input.stride + n]);
}

// A train's.
template <>
__device__ float current_of<uint8_t>(const Input& input, const Along& amplitude, int64_t t, int64_t n, int64_t d) {
    const uint32_t byte = input.train[t / kStepsPerByte * input.stride + n];
    return weighed(byte, t % kStepsPerByte, amplitude[d]);
}

// The statistics of a vector that every element's target needs.
struct Statistics {
    float shift;   // maximum or mean
    float factor;  // of every weight, or deviation
};

enum Function { softmax, layer_norm, rms_norm };

template <class Value, class Fold>
__device__ float reduce(int64_t length, float start, Value value, Fold fold) {
    float own = start;
    for (int64_t d = threadIdx.x; d < length; d += kThreads) own = fold(own, value(d));
    return over_block(own, fold);
}

template <Function F>
__device__ Statistics statistics(const VectorProblem& p, const Along& a, const float* x) {
    if (F == softmax) {
        const auto kept = [&](int64_t d) { return a[d] == 0.f ? -INFINITY : x[d]; };
        const float max = reduce(p.length, -INFINITY, kept, Max{});
        const auto weight = [&](int64_t d) { return softmax_weight(kept(d), max, a[d]); };
        return {max, softmax_factor(reduce(p.length, 0.f, weight, Add{}))};
    }
    const auto length = static_cast<float>(p.length);
    const auto itself = [&](int64_t d) { return x[d]; };
    const float mean = F == layer_norm ? reduce(p.length, 0.f, itself, Add{}) / length : 0.f;
    const auto square = [&](int64_t d) {
        const float u = F == layer_norm ? x[d] - mean : x[d];
        return u * u;
    };
    return {mean, norm_factor(reduce(p.length, 0.f, square, Add{}) / length, p.eps)};
}

template <Function F>
__device__ float target(float a, float b, float x, const Statistics& s) {
    if (F == softmax) return softmax_weight(a == 0.f ? -INFINITY : x, s.shift, a) * s.factor;
    return norm_target(F == layer_norm ? x - s.shift : x, s.factor, a, b);
}

template <Function F, class Current>
__global__ void __launch_bounds__(kThreads, 6) vector_kernel(const VectorProblem p) {
    const int64_t first = blockIdx.x * p.length;
    float* const x = p.x_out + first;
    float* const v = p.v_out + first;
    const Along x_before(p.x, first), v_before(p.v, first);
    const Along amplitude(p.input.amplitude, first), offset(p.offset, first), scale(p.scale, first), a(p.a, first),
        b(p.b, first);
    for (int64_t d = threadIdx.x; d < p.length; d += kThreads) {
        x[d] = x_before[d];
        v[d] = v_before[d];
    }
    for (int64_t t = 0; t < p.timesteps; ++t) {
        const float eta = __ldg(p.eta + t);
        for (int64_t d = threadIdx.x; d < p.length; d += kThreads)
            x[d] = decoded(x[d], eta, current_of<Current>(p.input, amplitude, t, first + d, d), offset[d]);
        const Statistics s = statistics<F>(p, a, x);
        uint8_t* const bytes = p.bytes + t / kStepsPerByte * p.neurons + first;
        for (int64_t d = threadIdx.x; d < p.length; d += kThreads) {
            const bool spike = chase(v[d], target<F>(a[d], F == softmax ? 0.f : b[d], x[d], s), eta, scale[d]);
            const uint32_t before = t % kStepsPerByte ? bytes[d] : 0u;
            bytes[d] = static_cast<uint8_t>(before | (spike ? 1u << t % kStepsPerByte : 0u));
        }
    }
}

template <Function F>
void run(const VectorProblem& p, cudaStream_t stream) {
    for (const Operand& operand : {p.input.amplitude, p.offset, p.scale, p.a, p.b, p.x, p.v})
        if (!is_along(operand, p.length))
            throw std::invalid_argument("vector: expected operands of one number a vector, or of whole vectors");
    const int64_t blocks = p.neurons / p.length;
    if (p.input.train) return launch("vector", vector_kernel<F, uint8_t>, blocks, stream, p);
    switch (p.input.dtype) {
        case DType::float32: return launch("vector", vector_kernel<F, float>, blocks, stream, p);
        case DType::float16: return launch("vector", vector_kernel<F, __half>, blocks, stream, p);
        case DType::bfloat16: return launch("vector", vector_kernel<F, __nv_bfloat16>, blocks, stream, p);
    }
}

}  // namespace
}  // namespace cuda

void vector_cuda(const VectorProblem& problem, void* stream) {
    if (problem.neurons == 0) return;
    const auto cuda_stream = static_cast<cudaStream_t>(stream);
    switch (problem.function) {
        case cuda::softmax: return cuda::run<cuda::softmax>(problem, cuda_stream);
        case cuda::layer_norm: return cuda::run<cuda::layer_norm>(problem, cuda_stream);
        default: return cuda::run<cuda::rms_norm>(problem, cuda_stream);
    }
}

}  // namespace snn
