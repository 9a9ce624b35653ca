// Blocks the spike product so that the tables of a block of outputs stay in the L2 cache while all rows pass by, and
// spreads blocks of outputs and of rows over threads.
#include "spike_gemm.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"
#include "spike_gemm_tile.h"

namespace snn {
namespace {

constexpr int64_t kTableBytes = 384 * 1024;   // of the L2 cache
constexpr int kMostOutputs = kTile / kLanes;  // a fused block is one tile of neurons

// Index bytes of every row: [byte group][block of 16 rows][inputs / 8][8 steps][16 rows].
class IndexBytes {
  public:
    IndexBytes(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, int threads)
        : blocks((p.rows + kLanes - 1) / kLanes), inputs((p.inputs + 7) / 8), contiguous_(is_contiguous(p)) {
        const int64_t steps = (p.timesteps + 7) / 8;
        block_bytes_ = inputs * 8 * kLanes;
        bytes_.resize(steps * blocks * block_bytes_);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
        for (int64_t job = 0; job < steps * blocks; ++job)
            fill(p, kernels, p.bytes + job / blocks * p.group_stride, job % blocks * kLanes,
                 bytes_.data() + job * block_bytes_);
    }
    const uint8_t* at(int64_t group, int64_t block) const {
        return bytes_.data() + (group * blocks + block) * block_bytes_;
    }

    const int64_t blocks, inputs;

  private:
    static bool is_contiguous(const SpikeGemmProblem& p) {
        for (int64_t k = 1; k < p.inputs; ++k)
            if (p.input_offset[k] != p.input_offset[k - 1] + 1) return false;
        return true;
    }

    void fill(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, const uint8_t* bytes, int64_t row,
              uint8_t* out) const {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, p.rows - row));
        for (int64_t k = 0; k < p.inputs; k += 8, out += 8 * kLanes) {
            const int count = static_cast<int>(std::min<int64_t>(8, p.inputs - k));
            uint64_t inputs_of_lane[kLanes] = {};
            for (int lane = 0; lane < lanes; ++lane) {
                const uint8_t* from = bytes + p.row_offset[row + lane];
                uint64_t word = 0;
                if (contiguous_ && count == 8) {
                    for (int j = 0; j < 8; ++j) word |= uint64_t{from[p.input_offset[k] + j]} << (8 * j);
                } else {
                    for (int j = 0; j < count; ++j) word |= uint64_t{from[p.input_offset[k + j]]} << (8 * j);
                }
                inputs_of_lane[lane] = word;
            }
            kernels.transpose(inputs_of_lane, out);
        }
    }

    bool contiguous_;
    int64_t block_bytes_;
    std::vector<uint8_t> bytes_;
};

// A block of outputs whose tables one thread keeps in its cache, and the blocks of rows it carries past them.
struct Job {
    int64_t output, outputs, first_block, last_block;
};

std::vector<Job> jobs_of(const SpikeGemmProblem& p, int64_t row_blocks, int64_t inputs, int threads) {
    const int64_t table_bytes = std::max<int64_t>(inputs, 1) * kTableFloats * int64_t{sizeof(float)};
    const int64_t fitting = kTableBytes / table_bytes;
    int64_t outputs = std::max<int64_t>(kOutputsAtOnce, std::min<int64_t>(fitting, kMostOutputs));
    outputs -= outputs % kOutputsAtOnce;
    const int64_t output_blocks = (p.outputs + outputs - 1) / outputs;
    // Rows are split only as far as the outputs leave threads idle or unevenly loaded.
    const int64_t splits = std::min<int64_t>(row_blocks, output_blocks % threads == 0 ? 1 : 2 * threads);
    std::vector<Job> jobs;
    for (int64_t split = 0; split < splits; ++split)
        for (int64_t n = 0; n < p.outputs; n += outputs)
            jobs.push_back(
                {n, std::min(outputs, p.outputs - n), split * row_blocks / splits, (split + 1) * row_blocks / splits});
    return jobs;
}

// Calls visit(job, byte group, block of rows, currents of the tile [8][outputs][16]) with all groups of a block of rows
// in order, so that a neuron can follow.
template <class MakeVisitor>
void for_each_tile(const SpikeGemmProblem& p, int threads, MakeVisitor make_visitor) {
    const SpikeGemmKernels& kernels = spike_gemm_kernels_here();
    threads = std::max(threads, 1);
    const IndexBytes index(p, kernels, threads);
    const std::vector<Job> jobs = jobs_of(p, index.blocks, index.inputs, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<float> tables(kMostOutputs * index.inputs * kTableFloats), bias(kMostOutputs);
        std::vector<float> tile(8 * kMostOutputs * kLanes);
        auto visit = make_visitor();
#pragma omp for schedule(dynamic)
        for (size_t j = 0; j < jobs.size(); ++j) {
            const Job& job = jobs[j];
            const int outputs = static_cast<int>(job.outputs);
            kernels.build_tables(p.weight + job.output * p.inputs, p.inputs, outputs, tables.data());
            for (int n = 0; n < outputs; ++n) bias[n] = p.bias ? p.bias[job.output + n] : 0.f;
            for (int64_t block = job.first_block; block < job.last_block; ++block)
                for (int64_t t = 0; t < p.timesteps; t += 8) {
                    kernels.accumulate(index.at(t / 8, block), tables.data(), bias.data(), index.inputs, outputs,
                                       tile.data(), int64_t{outputs} * kLanes);
                    visit(job, t, block, tile.data());
                }
        }
    }
}

void store(const SpikeGemmProblem& p, const Job& job, int64_t t, int64_t block, const float* tile) {
    const int64_t row = block * kLanes;
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, p.rows - row));
    const bool side_by_side = p.current_row[row + lanes - 1] - p.current_row[row] == lanes - 1;
    for (int64_t s = 0; s < std::min<int64_t>(8, p.timesteps - t); ++s, tile += job.outputs * kLanes) {
        float* out = p.current + (t + s) * p.step_stride + job.output * p.output_stride;
        if (side_by_side) {
            for (int64_t n = 0; n < job.outputs; ++n)
                std::memcpy(out + n * p.output_stride + p.current_row[row], tile + n * kLanes, lanes * sizeof(float));
            continue;
        }
        for (int lane = 0; lane < lanes; ++lane) {
            float* to = out + p.current_row[row + lane];
            for (int64_t n = 0; n < job.outputs; ++n) to[n * p.output_stride] = tile[n * kLanes + lane];
        }
    }
}

// The neurons behind a block of outputs and rows: their state stays with the thread from the first byte group to the
// last.
class NeuronBlock {
  public:
    NeuronBlock(const SpikeGemmProblem& gemm, const NeuronProblem& neuron) : gemm_(gemm), neuron_(neuron) {
        for (auto* values : {&x_, &v_, &offset_, &scale_, &parameter_[0], &parameter_[1]}) values->resize(kTile);
    }

    void operator()(const Job& job, int64_t t, int64_t block, const float* current) {
        const int64_t row = block * kLanes;
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, gemm_.rows - row));
        if (t == 0) load(job, row, lanes);
        Tile tile{};
        tile.count = static_cast<int>(job.outputs) * kLanes;
        tile.x[0] = x_.data();
        tile.v = v_.data();
        tile.offset[0] = offset_.data();
        tile.scale = scale_.data();
        for (int k = 0; k < kParameters; ++k) tile.parameter[k] = parameter_[k].data();
        const int steps = static_cast<int>(std::min<int64_t>(8, gemm_.timesteps - t));
        TileCurrents currents{};
        for (int s = 0; s < steps; ++s) currents.step[0][s] = current + int64_t{s} * tile.count;
        uint8_t bytes[kTile];
        kernel_(tile, currents, neuron_.eta + t, steps, bytes);
        for (int64_t n = 0; n < job.outputs; ++n)
            std::memcpy(neuron_.bytes + t / 8 * neuron_.neurons + (job.output + n) * gemm_.rows + row,
                        bytes + n * kLanes, lanes);
        if (t + 8 >= gemm_.timesteps) save(job, row, lanes);
    }

  private:
    void load(const Job& job, int64_t row, int lanes) {
        const std::pair<const Operand*, float*> operands[] = {{&neuron_.input[0].x, x_.data()},
                                                              {&neuron_.v, v_.data()},
                                                              {&neuron_.input[0].offset, offset_.data()},
                                                              {&neuron_.scale, scale_.data()},
                                                              {&neuron_.parameter[0], parameter_[0].data()},
                                                              {&neuron_.parameter[1], parameter_[1].data()}};
        for (const auto& [operand, values] : operands)
            for (int64_t n = 0; n < job.outputs; ++n)
                gather(*operand, (job.output + n) * gemm_.rows + row, lanes, values + n * kLanes);
    }

    void save(const Job& job, int64_t row, int lanes) {
        for (int64_t n = 0; n < job.outputs; ++n) {
            const int64_t to = (job.output + n) * gemm_.rows + row;
            std::copy_n(x_.data() + n * kLanes, lanes, neuron_.input[0].x_out + to);
            std::copy_n(v_.data() + n * kLanes, lanes, neuron_.v_out + to);
        }
    }

    const SpikeGemmProblem& gemm_;
    const NeuronProblem& neuron_;
    TileKernel kernel_ = tile_kernels_here().neuron[neuron_.model];
    std::vector<float> x_, v_, offset_, scale_, parameter_[kParameters];
};

}  // namespace

void spike_gemm_dense_cpu(const SpikeGemmProblem& p, int threads) {
    for_each_tile(p, threads, [&] {
        return [&](const Job& job, int64_t t, int64_t block, const float* tile) { store(p, job, t, block, tile); };
    });
}

void spike_gemm_signgd_cpu(const SpikeGemmProblem& p, const NeuronProblem& neuron, int threads) {
    for_each_tile(p, threads, [&] { return NeuronBlock(p, neuron); });
}

void spike_gemm_event_cpu(const SpikeGemmProblem& p, const float* weight_by_input, int threads) {
    constexpr int64_t kMostOutputsOfEvents = 512;  // eight steps of them fill half of the L1 cache
    const SpikeGemmKernels& kernels = spike_gemm_kernels_here();
    const int64_t groups = (p.timesteps + 7) / 8;
#pragma omp parallel num_threads(std::max(threads, 1)) if (threads > 1)
    {
        std::vector<float> current(8 * kMostOutputsOfEvents);
#pragma omp for schedule(dynamic, 16)
        for (int64_t job = 0; job < groups * p.rows; ++job) {
            const int64_t t = job / p.rows * 8, row = job % p.rows;
            for (int64_t first = 0; first < p.outputs; first += kMostOutputsOfEvents) {
                const int outputs = static_cast<int>(std::min(kMostOutputsOfEvents, p.outputs - first));
                kernels.accumulate_events(p.bytes + t / 8 * p.group_stride + p.row_offset[row], p.input_offset,
                                          p.inputs, weight_by_input + first, p.outputs,
                                          p.bias ? p.bias + first : nullptr, outputs, current.data());
                const int steps = static_cast<int>(std::min<int64_t>(8, p.timesteps - t));
                for (int s = 0; s < steps; ++s) {
                    float* out = p.current + (t + s) * p.step_stride + p.current_row[row] + first * p.output_stride;
                    for (int n = 0; n < outputs; ++n) out[n * p.output_stride] = current[s * outputs + n];
                }
            }
        }
    }
}

}  // namespace snn
