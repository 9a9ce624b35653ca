// A warp multiplies the spikes of 16 rows with the weights of 32 outputs for the eight steps of a byte group at once:
// 128 sums a lane. A byte of a train widened to 16 bits and masked with 1 << s is, read as float16, the subnormal
// number spike * 2^(s - 24). Tensor cores multiply it without rounding, so bytes become factors by one AND for two of
// them and a step, and a lane has the sums of its neurons for all eight steps: the neuron's loop over time exchanges
// nothing. Neither spikes nor weights pass through shared memory: the warps of a block read the same weights from the
// L1 cache.
#pragma once

#include "../core/models.h"
#include "reduce.cuh"
#include "spike_gemm.h"
#include "tensor_core.cuh"

namespace snn::cuda {

constexpr int kWarp = 32, kWarpRows = 16, kBlockRows = kThreads / kWarp * kWarpRows;
constexpr int kTiles = kOutputBlock / 8;  // products of a lane side by side, 8 outputs each
constexpr int kLaneOutputs = 8;           // neighbouring outputs of a lane, in each of its two rows

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

// sum[s][q][2 * half + e]: step s, the lane's row `half` and output 2 q + e.
struct Sums {
    float of[kStepsPerByte][kTiles][4];

    __device__ float current(int s, int half, int output, float multiplier, float bias) const {
        // The first product is exact; the second is, too, where no amplitude stands in the multiplier.
        return of[s][output / 2][2 * half + output % 2] * static_cast<float>(1 << (24 - s)) * multiplier + bias;
    }
};

// What a lane needs of a block of inputs and one part of its weights.
struct Factors {
    uint32_t bytes[2];  // four inputs of each row
    uint4 weight[kTiles / 2];
};

// The start of a row's first block in a byte group.
__device__ __forceinline__ int64_t start_of(const Windows& windows, int64_t row) {
    const int64_t line = row / windows.width, sample = line / windows.height;
    return sample * windows.sample_stride + (line - sample * windows.height) * windows.y_stride +
           (row - line * windows.width) * windows.x_stride;
}

// Goes through the blocks of inputs in order.
class Blocks {
  public:
    int64_t start = 0;  // of the present one behind that of the row

    __device__ void advance(const Windows& windows) {
        start += kInputBlock;
        if (++block_ < windows.tap_blocks) return;
        block_ = 0;
        start += windows.tap_x_stride - windows.tap_blocks * kInputBlock;
        if (++tap_x_ < windows.kernel_width) return;
        tap_x_ = 0;
        start += windows.tap_y_stride - windows.kernel_width * windows.tap_x_stride;
    }

  private:
    int block_ = 0, tap_x_ = 0;
};

// The blocks of inputs in order, the parts of each one after the other.
class Inputs {
  public:
    __device__ Inputs(const SpikeProduct& p, const Lane& lane, int64_t group) : p_(p) {
        for (int half = 0; half < 2; ++half) {
            const int64_t row = lane.row[half] < p.rows ? lane.row[half] : p.rows - 1;
            from_[half] = p.bytes + group * p.group_stride + start_of(p.windows, row) + lane.number % 4 * 4;
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
    const uint32_t spikes[4] = {__byte_perm(factors.bytes[0], 0, 0x4140), __byte_perm(factors.bytes[1], 0, 0x4140),
                                __byte_perm(factors.bytes[0], 0, 0x4342), __byte_perm(factors.bytes[1], 0, 0x4342)};
    // Of steps past the end the bits are 0. Four of them are left out together: a branch a step would be one too many.
#pragma unroll
    for (int s = 0; s < kStepsPerByte; ++s) {
        if (s == kStepsPerByte / 2 && steps <= s) break;
        uint32_t a[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = spikes[i] & 0x00010001u << s;
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

// The steps of a byte group that there are.
__device__ __forceinline__ int steps_of(int64_t timesteps, int64_t group) {
    const int64_t left = timesteps - group * kStepsPerByte;
    return left < kStepsPerByte ? static_cast<int>(left) : kStepsPerByte;
}

constexpr int kRun = 4, kRuns = kLaneOutputs / kRun;  // neighbouring outputs, loaded and stored together

__device__ __forceinline__ void load_run(const float* from, int count, bool whole, float (&to)[kRun]) {
    if (whole) {
        const float4 raw = *reinterpret_cast<const float4*>(from);
        to[0] = raw.x, to[1] = raw.y, to[2] = raw.z, to[3] = raw.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) to[i] = i < count ? from[i] : 0.f;
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
            store(to + s * out.step_stride, current, count, whole);
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
                load_bytes(residual.bytes + group * residual.step_stride + beside, residual_byte, count, whole);
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
                const Step at = {__ldg(out.eta + t), 0.f, 0.f};
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
            store(out.bytes + (group * p.rows + row) * p.outputs + output, byte, count, whole);
        });
    }
    for_each_run(lane, p.rows, [&](int half, int run, int64_t row, int64_t output, int count) {
        store(out.x_out + row * p.outputs + output, x[half][run], count, whole);
        store(out.v_out + row * p.outputs + output, v[half][run], count, whole);
    });
}

constexpr int kEventRows = kThreads / kWarp, kEventOutputs = kWarp * kRun;

// Event-driven. A warp has a row and 128 outputs for the eight steps of a byte group: 32 sums a lane. Its lanes read
// the same bytes, so none leaves the others: sixteen silent inputs are passed over together, and the weights of an
// input that fires are read once for all its steps.
__global__ void __launch_bounds__(kThreads) spike_event_kernel(const SpikeCurrentProblem out, const bool whole) {
    const SpikeProduct& p = out.product;
    const int64_t groups = (p.timesteps + kStepsPerByte - 1) / kStepsPerByte;
    const int64_t group = blockIdx.x % groups, tile = blockIdx.x / groups;
    const int64_t column_blocks = (p.outputs + kEventOutputs - 1) / kEventOutputs;
    const int64_t row = tile / column_blocks * kEventRows + threadIdx.x / kWarp;
    const int64_t output = tile % column_blocks * kEventOutputs + threadIdx.x % kWarp * kRun;
    const int64_t left = p.outputs - output;
    const int count = left < kRun ? static_cast<int>(left) : kRun;
    if (row >= p.rows || count <= 0) return;

    float sum[kStepsPerByte][kRun] = {};
    const uint8_t* const from = p.bytes + group * p.group_stride + start_of(p.windows, row);
    const float* weight = static_cast<const float*>(p.weight) + output;
    Blocks blocks;
    for (int64_t i = p.windows.taps * p.windows.tap_blocks; i > 0; --i) {
        const uint4 sixteen = __ldg(reinterpret_cast<const uint4*>(from + blocks.start));
        const uint32_t words[] = {sixteen.x, sixteen.y, sixteen.z, sixteen.w};
#pragma unroll
        for (int w = 0; w < 4; ++w) {
            for (uint32_t word = words[w]; word;) {
                const int k = (__ffs(static_cast<int>(word)) - 1) / 8;
                const uint32_t byte = word >> 8 * k & 255;
                word &= ~(255u << 8 * k);
                float added[kRun];
                load_run(weight + (4 * w + k) * p.outputs, count, whole, added);
#pragma unroll
                for (int s = 0; s < kStepsPerByte; ++s) {
                    if (!(byte >> s & 1)) continue;
#pragma unroll
                    for (int o = 0; o < kRun; ++o) sum[s][o] += added[o];
                }
            }
        }
        blocks.advance(p.windows);
        weight += kInputBlock * p.outputs;
    }
    float multiplier[kRun], bias[kRun];
    load_run(p.multiplier + output, count, whole, multiplier);
    load_run(p.bias + output, count, whole, bias);
    float* to = out.current + group * kStepsPerByte * out.step_stride + row * out.row_stride + output;
    const int steps = steps_of(p.timesteps, group);
#pragma unroll
    for (int s = 0; s < kStepsPerByte; ++s) {
        if (s >= steps) break;
        float current[kRun];
#pragma unroll
        for (int o = 0; o < kRun; ++o) current[o] = sum[s][o] * multiplier[o] + bias[o];
        store(to + s * out.step_stride, current, count, whole);
    }
}

__device__ __forceinline__ float power_of_two(int exponent) {
    return from_bits(static_cast<uint32_t>(exponent + 127) << 23);
}

// The exponent that brings a number of at least 0 to [2^14, 2^15), as far as powers of two go.
__device__ __forceinline__ int exponent_for(float largest, int lowest) {
    const int exponent = 141 - static_cast<int>(to_bits(largest) >> 23);
    return exponent < lowest ? lowest : exponent > 126 ? 126 : exponent;
}

constexpr float kLargestFloat = 3.402823466e38f;

// A block prepares the weights of an output.
template <class Weight>
__global__ void __launch_bounds__(kThreads) spike_weight_kernel(const SpikeWeightProblem p) {
    const int64_t n = blockIdx.x;
    const auto taps = static_cast<uint32_t>(p.taps), tap_blocks = static_cast<uint32_t>(p.tap_blocks);
    const bool by_channel = p.amplitude && p.amplitude_stride;
    const auto value_of = [&](uint32_t c, uint32_t tap) {
        if (n >= p.outputs || c >= p.channels) return 0.f;
        const Weight* from = static_cast<const Weight*>(p.from) + n * p.output_stride;
        const float value = to_float(from[c * p.channel_stride + tap * p.tap_stride]);
        return by_channel ? value * p.amplitude[c * p.amplitude_stride] : value;
    };
    float own = 0.f;
    for (uint32_t i = threadIdx.x; i < p.channels * taps; i += kThreads) {
        const float size = fabsf(value_of(i / taps, i % taps));
        if (size > own && size <= kLargestFloat) own = size;
    }
    // float16 weights as they are fit as they are: scaled down, the smallest would not.
    const bool as_they_are = sizeof(Weight) == 2 && p.dtype == DType::float16 && !by_channel;
    const int exponent = exponent_for(over_block(own, Max{}), as_they_are ? 0 : -126);
    const float factor = power_of_two(exponent);
    if (threadIdx.x == 0) {
        const float back = power_of_two(-exponent);
        p.multiplier[n] = p.amplitude && !by_channel ? back * *p.amplitude : back;
        p.bias[n] = p.bias_from && n < p.outputs ? p.bias_from[n] : 0.f;
    }
    // Four neighbouring inputs of an output are half of what a lane gives to a pair of products: see Lane.
    const auto in_block = static_cast<uint32_t>(n % kOutputBlock);
    const uint32_t pair = in_block / 4 % 2, product = in_block / 2 % 2, row = in_block / 8 * 2 + in_block % 2;
    __half* const to = static_cast<__half*>(p.weight) +
                       n / kOutputBlock * p.taps * p.tap_blocks * p.parts * (kTiles / 2 * kWarp * 8) + product * 4;
    for (uint32_t quad = threadIdx.x; quad < taps * tap_blocks * 4; quad += kThreads) {
        const uint32_t block = quad / 4, j = quad % 4, tap = block / tap_blocks;
        const uint32_t first = block % tap_blocks * kInputBlock + j * 4;
        for (uint32_t k = 0; k < 4; ++k) {
            float rest = value_of(first + k, tap) * factor;
            for (uint32_t part = 0; part < p.parts; ++part) {
                const __half rounded = __float2half_rn(rest);
                const int64_t fragment = (block * p.parts + part) * (kTiles / 2) + pair;
                to[(fragment * kWarp + row * 4 + j) * 8 + k] = rounded;
                const float given = __half2float(rounded);
                rest = fabsf(given) <= kLargestFloat ? rest - given : 0.f;
            }
        }
    }
}

}  // namespace snn::cuda
