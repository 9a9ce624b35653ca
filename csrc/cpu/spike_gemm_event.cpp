// The event-driven spike product: a block of rows at a time, so that the weights its spikes name come from the cache.
#include <algorithm>
#include <vector>

#include "memory.h"
#include "neuron_tile.h"
#include "spike_gemm.h"
#include "spike_gemm_tile.h"
#include "spike_index.h"
#include "spike_stores.h"

namespace snn {
namespace {

constexpr int64_t kRows = 64;  // whose spikes read a block of weights in turn

// Fixed-point weights with the outputs of one input side by side: [block of 64 outputs][inputs][64].
struct EventWeights {
    EventWeights(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, int threads)
        : blocks((p.outputs + kEventOutputs - 1) / kEventOutputs),
          weight(blocks * p.inputs * kEventOutputs),
          unit(blocks * kEventOutputs),
          bias(blocks * kEventOutputs) {
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
            std::vector<int32_t> fixed(kTogether * p.inputs);
            std::vector<float> values(p.inputs);
#pragma omp for schedule(static)
            for (int64_t output = 0; output < blocks * kEventOutputs; output += kTogether)
                fill(p, kernels, output, values.data(), fixed.data());
        }
    }

    static constexpr int64_t kTogether = 16;  // outputs: a cache line of the weights of an input

    void fill(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, int64_t output, float* values,
              int32_t* fixed) {
        for (int64_t n = 0; n < kTogether; ++n) {
            int32_t* const of_output = fixed + n * p.inputs;
            const int64_t from = output + n;
            const bool exists = from < p.outputs;
            unit[from] = exists ? fixed_weights(p, kernels.to_fixed_point, from, values, of_output) : 0.f;
            bias[from] = exists && p.bias ? p.bias[from] : 0.f;
            if (!exists) std::fill_n(of_output, p.inputs, 0);
        }
        int32_t* to = weight.data() + output / kEventOutputs * p.inputs * kEventOutputs + output % kEventOutputs;
        for (int64_t k = 0; k < p.inputs; ++k, to += kEventOutputs)
            for (int64_t n = 0; n < kTogether; ++n) to[n] = fixed[n * p.inputs + k];
    }

    const int64_t blocks;
    Aligned<int32_t> weight;
    std::vector<float> unit, bias;
};

// Fetches what store() writes for a convolution: the lines lie far apart, where the hardware does not see them coming.
void prefetch(const SpikeGemmProblem& p, int64_t t, int64_t row, int64_t output) {
    if (p.output_stride == 1 || p.streams) return;
    const float* out = p.current + t * p.step_stride + row;
    for (int64_t n = output; n < std::min(output + kEventOutputs, p.outputs); ++n)
        __builtin_prefetch(out + n * p.output_stride, 1);
}

// Writes 64 outputs of sixteen rows at one step: currents[row][64].
void store(const SpikeGemmProblem& p, const Stores& stores, int64_t t, const int64_t* row, int rows, int64_t output,
           const float* currents) {
    float* out = p.current + t * p.step_stride + output * p.output_stride;
    const int64_t outputs = std::min<int64_t>(kEventOutputs, p.outputs - output);
    const bool rows_side_by_side = rows == kLanes && row[kLanes - 1] - row[0] == kLanes - 1;
    int64_t n = 0;
    if (rows_side_by_side)
        for (; n + kLanes <= outputs; n += kLanes) {
            float* to[kLanes];
            for (int i = 0; i < kLanes; ++i) to[i] = out + row[0] + (n + i) * p.output_stride;
            stores.transpose(currents + n, kEventOutputs, to);
        }
    for (int i = 0; i < rows; ++i) {
        const float* from = currents + i * kEventOutputs;
        if (p.output_stride == 1 && outputs % kLanes == 0)
            stores.copy_lines(from, kLanes, outputs / kLanes, out + row[i], kLanes);
        else if (p.output_stride == 1)
            std::copy(from, from + outputs, out + row[i]);
        else
            for (int64_t m = n; m < outputs; ++m) out[row[i] + m * p.output_stride] = from[m];
    }
}

}  // namespace

void spike_gemm_event_cpu(const SpikeGemmProblem& p, int threads) {
    const SpikeGemmKernels& kernels = *tile_kernels_here().spike_gemm;
    threads = std::max(threads, 1);
    const EventWeights weights(p, kernels, threads);
    const int64_t groups = (p.timesteps + 7) / 8, row_blocks = (p.rows + kRows - 1) / kRows;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        EventLists events(p, std::min(kRows, p.rows));
        const Stores stores(p.streams);
        Aligned<float> currents(kLanes * kEventOutputs);
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < groups * row_blocks; ++job) {
            const int64_t t = job / row_blocks * 8, first = job % row_blocks * kRows;
            const int64_t rows = std::min(kRows, p.rows - first), steps = std::min<int64_t>(8, p.timesteps - t);
            events.fill(t / 8, first, rows);
            for (int64_t block = 0; block < weights.blocks; ++block) {
                const int64_t output = block * kEventOutputs;
                const int32_t* weight = weights.weight.data() + output * p.inputs;
                const AccumulateEvents accumulate = kernels.accumulate_events(p.outputs - output);
                for (int64_t row = 0; row < rows; row += kLanes)
                    for (int step = 0; step < steps; ++step) {
                        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, rows - row));
                        const int64_t* to = p.current_row + first + row;
                        prefetch(p, t + step, to[0], output);
                        for (int lane = 0; lane < lanes; ++lane)
                            accumulate(events.begin(row + lane, step), events.count(row + lane, step), weight,
                                       weights.unit.data() + output, weights.bias.data() + output,
                                       p.row_amplitude ? p.row_amplitude[first + row + lane] : 1.f,
                                       currents.data() + lane * kEventOutputs);
                        store(p, stores, t + step, to, lanes, output, currents.data());
                    }
            }
        }
    }
}

}  // namespace snn
