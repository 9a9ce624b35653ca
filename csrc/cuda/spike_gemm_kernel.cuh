// A warp multiplies the spikes of 16 rows with the weights of 32 outputs for the eight steps of a byte group at once:
// 128 sums a lane. A spike's bit, put where a float16 number has its exponent and masked, is a power of two: see
// exponent_bit. Tensor cores multiply it without rounding, so bytes become factors by one or two operations for two of
// them and a step, and a lane has the sums of its neurons for all eight steps: the neuron's loop over time exchanges
// nothing. Neither spikes nor weights pass through shared memory: the warps of a block read the same weights from the
// L1 cache.
#pragma once

#include "../core/models.h"
#include "spike_gemm.cuh"
#include "tensor_core.cuh"

namespace snn::cuda {

constexpr int kWarpRows = 16, kBlockRows = kThreads / kWarp * kWarpRows;
constexpr int kLaneOutputs = 8, kRuns = kLaneOutputs / kRun;  // neighbouring outputs of a lane, in each of its two rows

// A lane of the warp that has a tile of rows and outputs. Inputs and outputs are numbered so that what a lane needs
// lies side by side. Lane 4 i + j holds rows i and i + 8 of the warp; of a block of inputs it reads 4j .. 4j+3, as
// columns 2j, 2j+1, 2j+8 and 2j+9 of the product; of a block of outputs it gets 8j .. 8j+7, as columns 2j, 2j+1 of four
// products. So it gives the weights of output 8 (i / 2) + 2 q + i % 2 to product q.
struct Lane {
    int64_t row[2];
    int64_t first_output;
    int outputs;  // of the lane's eight, those that exist; not above 0 if none does
    int number;   // in its warp
    int64_t output_block;

    __device__ Lane(const SpikeProduct& p, int64_t tile) {
        const int64_t column_blocks = (p.outputs + kOutputBlock - 1) / kOutputBlock;
        output_block = tile % column_blocks;
        number = static_cast<int>(threadIdx.x) % kWarp;
        const int64_t first_row = tile / column_blocks * kBlockRows + threadIdx.x / kWarp * kWarpRows;
        for (int half = 0; half < 2; ++half) row[half] = first_row + number / 4 + half * 8;
        first_output = output_block * kOutputBlock + number % 4 * kLaneOutputs;
        const int64_t left = p.outputs - first_output;
        outputs = left < kLaneOutputs ? static_cast<int>(left) : kLaneOutputs;
    }
};

// The bit of a float16 number that step s of a byte becomes. One bit of the exponent (10 to 14) alone is a normal
// number: a subnormal one, bit s as it is, would be multiplied without rounding, too, but tensor cores align what they
// add by the exponents of the factors, subnormal ones as 2^-14, and cut off what lies 24 bits below the largest: 10 - s
// bits more.
__host__ __device__ constexpr int exponent_bit(int s) { return s < 5 ? 10 + s : 7 + s; }

// What brings the sum of a step back: one over its spikes' power of two.
__host__ __device__ constexpr float undone(int s) {
    const int exponent = 15 - (1 << (exponent_bit(s) - 10));
    return exponent < 0 ? 1.f / static_cast<float>(1 << -exponent) : static_cast<float>(1 << exponent);
}

// Two inputs at step s, of their bytes widened to 16 bits.
__device__ __forceinline__ uint32_t spikes_at(uint32_t bytes, int s) {
    return bytes << (exponent_bit(s) - s) & 0x00010001u << exponent_bit(s);
}

// sum[s][q][2 * half + e]: step s, the lane's row `half` and output 2 q + e.
struct Sums {
    float of[kStepsPerByte][kTiles][4];

    __device__ float current(int s, int half, int output, float multiplier, float bias) const {
        // The first product is exact; the second is, too, where no amplitude stands in the multiplier.
        return of[s][output / 2][2 * half + output % 2] * undone(s) * multiplier + bias;
    }
};

// What a lane needs of a block of inputs and one part of its weights.
struct Factors {
    uint32_t bytes[2];  // four inputs of each row
    uint4 weight[kTiles / 2];
};

// The blocks of inputs in order, the parts of each one after the other.
class Inputs {
  public:
    __device__ Inputs(const SpikeProduct& p, const Lane& lane, int64_t group) : p_(p) {
        const uint8_t* const section =
            p.bytes + group * p.group_stride + section_of(p.windows, lane.output_block * kOutputBlock);
        for (int half = 0; half < 2; ++half) {
            const int64_t row = lane.row[half] < p.rows ? lane.row[half] : p.rows - 1;
            from_[half] = section + start_of(p.windows, row) + lane.number % 4 * 4;
        }
        weight_ =
            static_cast<const uint4*>(p.weight) + lane.output_block * count() * (kTiles / 2 * kWarp) + lane.number;
    }

    __device__ int64_t count() const { return p_.windows.taps * p_.windows.tap_blocks * p_.parts; }

    __device__ Factors next() {
        Factors factors;
#pragma unroll
        for (int half = 0; half < 2; ++half)
            factors.bytes[half] = __ldg(reinterpret_cast<const uint32_t*>(from_[half] + blocks_.start));
#pragma unroll
        for (int pair = 0; pair < kTiles / 2; ++pair) factors.weight[pair] = __ldg(weight_ + pair * kWarp);
        weight_ += kTiles / 2 * kWarp;
        if (++part_ == p_.parts) {
            part_ = 0;
            blocks_.advance(p_.windows);
        }
        return factors;
    }

  private:
    const SpikeProduct& p_;
    const uint8_t* from_[2];
    const uint4* weight_;
    Blocks blocks_;
    int part_ = 0;
};

__device__ __forceinline__ void add(Sums& sums, const Factors& factors, int steps) {
    // Bytes 0, 1 and bytes 2, 3 of a row, widened.
    const uint32_t bytes[4] = {__byte_perm(factors.bytes[0], 0, 0x4140), __byte_perm(factors.bytes[1], 0, 0x4140),
                               __byte_perm(factors.bytes[0], 0, 0x4342), __byte_perm(factors.bytes[1], 0, 0x4342)};
    // Of steps past the end the bits are 0. Four of them are left out together: a branch a step would be one too many.
#pragma unroll
    for (int s = 0; s < kStepsPerByte; ++s) {
        if (s == kStepsPerByte / 2 && steps <= s) break;
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = spikes_at(bytes[i], s);
#pragma unroll
        for (int pair = 0; pair < kTiles / 2; ++pair) {
            const uint4 b = factors.weight[pair];
            multiply_add(sums.of[s][2 * pair], a, b.x, b.y);
            multiply_add(sums.of[s][2 * pair + 1], a, b.z, b.w);
        }
    }
}

__device__ __forceinline__ Sums sums_of_group(Inputs inputs, int steps) {
    Sums sums = {};
    int64_t left = inputs.count();
    Factors next = left ? inputs.next() : Factors{};
    while (left-- > 0) {
        const Factors now = next;
        if (left) next = inputs.next();
        add(sums, now, steps);
    }
    return sums;
}

// Calls f(half, run, row, first output, outputs that exist) for the runs of neurons that the lane has.
template <class F>
__device__ __forceinline__ void for_each_run(const Lane& lane, int64_t rows, F f) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int run = 0; run < kRuns; ++run) {
            const int count = lane.outputs - run * kRun;
            if (lane.row[half] < rows && count > 0) f(half, run, lane.row[half], lane.first_output + run * kRun, count);
        }
    }
}

__global__ void __launch_bounds__(kThreads, 2) spike_current_kernel(const SpikeCurrentProblem out, const bool whole) {
    const SpikeProduct& p = out.product;
    const int64_t groups = (p.timesteps + kStepsPerByte - 1) / kStepsPerByte;
    const int64_t group = blockIdx.x % groups;
    const int steps = steps_of(p.timesteps, group);
    const Lane lane(p, blockIdx.x / groups);
    const Sums sums = sums_of_group(Inputs(p, lane, group), steps);
    for_each_run(lane, p.rows, [&](int half, int run, int64_t row, int64_t output, int count) {
        float multiplier[kRun], bias[kRun];
        load_run(p.multiplier + output, kRun, true, multiplier);
        load_run(p.bias + output, kRun, true, bias);
        float* to = out.current + group * kStepsPerByte * out.step_stride + row * out.row_stride + output;
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s) {
            if (s >= steps) break;
            float current[kRun];
#pragma unroll
            for (int i = 0; i < kRun; ++i) current[i] = sums.current(s, half, run * kRun + i, multiplier[i], bias[i]);
            store_run(to + s * out.step_stride, current, count, whole);
        }
    });
}

template <class Model>
__global__ void __launch_bounds__(kThreads, 2) spike_neuron_kernel(const SpikeNeuronProblem out, const bool whole) {
    const SpikeProduct& p = out.product;
    const Lane lane(p, blockIdx.x);
    const auto load = [&](const NeuronField& field, int64_t row, int64_t output, int count, float (&to)[kRun]) {
        load_run(field.data + row * field.row_stride + output, count, whole, to);
    };
    // The state of the lane's neurons stays in registers; beside the sums there is no room for the other fields.
    float x[2][kRuns][kRun], v[2][kRuns][kRun];
    for_each_run(lane, p.rows, [&](int half, int run, int64_t row, int64_t output, int count) {
        load(out.x, row, output, count, x[half][run]);
        load(out.v, row, output, count, v[half][run]);
    });
    for (int64_t group = 0; group * kStepsPerByte < p.timesteps; ++group) {
        const int steps = steps_of(p.timesteps, group);
        const Sums sums = sums_of_group(Inputs(p, lane, group), steps);
        float eta[kStepsPerByte];  // past the last step, that again
#pragma unroll
        for (int s = 0; s < kStepsPerByte; ++s)
            eta[s] = __ldg(out.eta + group * kStepsPerByte + (s < steps ? s : steps - 1));
        for_each_run(lane, p.rows, [&](int half, int run, int64_t row, int64_t output, int count) {
            float multiplier[kRun], bias[kRun], offset[kRun], scale[kRun], a[kRun], b[kRun];
            load_run(p.multiplier + output, kRun, true, multiplier);
            load_run(p.bias + output, kRun, true, bias);
            load(out.offset, row, output, count, offset);
            load(out.scale, row, output, count, scale);
            load(out.parameter[0], row, output, count, a);
            load(out.parameter[1], row, output, count, b);
            const ResidualRows& residual = out.residual;
            const int64_t beside = row * residual.row_stride + output;
            uint32_t residual_byte[kRun];
            float amplitude[kRun];
            if (residual.bytes) {
                load_bytes(residual.bytes + group * residual.step_stride + beside, count, whole, residual_byte);
                load_run(residual.amplitude + output, count, whole, amplitude);
            }
            Neuron neuron[kRun];
#pragma unroll
            for (int i = 0; i < kRun; ++i) {
                neuron[i].x = x[half][run][i], neuron[i].v = v[half][run][i];
                neuron[i].offset_x = offset[i], neuron[i].scale = scale[i];
                neuron[i].a = a[i], neuron[i].b = b[i];
            }
            uint32_t byte[kRun] = {};
#pragma unroll
            for (int s = 0; s < kStepsPerByte; ++s) {
                if (s >= steps) break;
                const int64_t t = group * kStepsPerByte + s;
                const Step at = {eta[s], 0.f, 0.f};
                float added[kRun];
                if (residual.current)
                    load_run(residual.current + t * residual.step_stride + beside, count, whole, added);
#pragma unroll
                for (int i = 0; i < kRun; ++i) {
                    float current = sums.current(s, half, run * kRun + i, multiplier[i], bias[i]);
                    if (residual.current) current += added[i];
                    if (residual.bytes) current += weighed(residual_byte[i], s, amplitude[i]);
                    byte[i] |= Model::step(neuron[i], current, current, at) ? 1u << s : 0u;
                }
            }
#pragma unroll
            for (int i = 0; i < kRun; ++i) x[half][run][i] = neuron[i].x, v[half][run][i] = neuron[i].v;
            store_run(out.bytes + (group * p.rows + row) * p.outputs + output, byte, count, whole);
        });
    }
    for_each_run(lane, p.rows, [&](int half, int run, int64_t row, int64_t output, int count) {
        store_run(out.x_out + row * p.outputs + output, x[half][run], count, whole);
        store_run(out.v_out + row * p.outputs + output, v[half][run], count, whole);
    });
}

}  // namespace snn::cuda
