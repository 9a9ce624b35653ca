// Blocks the dense spike product so that the tables of a block of outputs stay in the L2 cache while all rows pass by,
// and spreads blocks of outputs and of rows over threads.
#include "spike_gemm.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "memory.h"
#include "neuron_fields.h"
#include "neuron_tile.h"
#include "spike_gemm_tile.h"
#include "spike_index.h"
#include "spike_stores.h"
#include "team.h"

namespace snn {
namespace {

constexpr int kFusedTile = kMostOutputs * kLanes;  // neurons of a fused block: in the L1 cache

// A block of outputs whose tables one thread keeps in its cache, and the blocks of rows it carries past them.
struct Job {
    int64_t output, outputs, first_block, last_block;
};

// Outputs whose tables fit in the cache, each of which takes `share` of it: whole lines of currents if possible.
int64_t outputs_of_job(double share, int at_once) {
    const auto fitting = static_cast<int64_t>(std::min<double>(kMostOutputs, 1 / share));
    const int64_t multiple = fitting >= kLanes ? kLanes : std::max(at_once, kMostAtOnce);
    return std::max(fitting / multiple * multiple, multiple);
}

// With fewer, tiles of bytes take longer than permutes (measured with 8,192 rows of both).
constexpr int64_t kFewestTileInputs = 64, kFewestTileOutputs = 16;

const DenseKernels& dense_kernels_for(const SpikeGemmProblem& p) {
#if defined(SNN_AMX_KERNELS)
    if (isa_here() == Isa::amx && !p.output_bytes && p.inputs >= kFewestTileInputs && p.outputs >= kFewestTileOutputs)
        return p.weight8 ? amx::byte_kernels : amx::dense_kernels;
#endif
    (void)p;
    return tile_kernels_here().spike_gemm->dense;
}

// Positions from which on the channels of a depthwise convolution are better taken one after the other: each fills
// pages of currents of its own.
constexpr int64_t kSmallPlane = 128;

std::vector<Job> jobs_of(const SpikeGemmProblem& p, int64_t row_blocks, int64_t outputs, int threads) {
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

// The tables of a block of outputs, with the unit and the bias of each.
class Tables {
  public:
    Tables(const SpikeGemmProblem& p, const DenseKernels& dense, int64_t outputs)
        : dense_(dense),
          blocks_(dense.blocks(p.inputs)),
          fixed_(blocks_ * dense.block_inputs),
          values_(p.inputs),
          entries_(outputs * blocks_ * dense.block_table) {}

    void build(const SpikeGemmProblem& p, ToFixedPoint to_fixed_point, const Job& job) {
        for (int64_t n = 0; n < job.outputs; ++n) {
            const int64_t output = job.output + n;
            unit[n] = fixed_weights(p, to_fixed_point, output, values_.data(), fixed_.data());
            bias[n] = p.bias ? p.bias[output] : 0.f;
            dense_.build_tables(fixed_.data(), blocks_, n, entries_.data());
        }
        if (job.outputs % dense_.outputs_at_once == 0) return;
        std::fill(fixed_.begin(), fixed_.end(), 0);
        for (int64_t n = job.outputs; n % dense_.outputs_at_once; ++n)
            dense_.build_tables(fixed_.data(), blocks_, n, entries_.data());
    }
    const int32_t* data() const { return entries_.data(); }
    const int32_t* of_output(int64_t n) const { return data() + n * blocks_ * dense_.block_table; }

    float unit[kMostOutputs], bias[kMostOutputs];

  private:
    const DenseKernels& dense_;
    const int64_t blocks_;
    std::vector<int32_t> fixed_;  // of one output, with zeros after the last input
    std::vector<float> values_;
    Aligned<int32_t> entries_;
};

// Sixteen rows (fewer at the end): where each lies, and whether they are neighbours in memory.
struct RowBlock {
    RowBlock(const int64_t* row_offset, int64_t rows, int64_t block)
        : offset(row_offset + block * kLanes),
          lanes(static_cast<int>(std::min<int64_t>(kLanes, rows - block * kLanes))) {
        for (int lane = 1; lane < lanes; ++lane) side_by_side &= offset[lane] == offset[0] + lane;
    }

    const int64_t* offset;
    int lanes;
    bool side_by_side = true;
};

// Fetches what a tile's currents are stored to or added to, while the tile is computed: the lines lie far apart, where
// the hardware does not see them coming.
void prefetch_currents(const SpikeGemmProblem& p, const Job& job, int64_t t, int64_t block) {
    if (!p.current || p.streams) return;
    constexpr int64_t kLine = 64 / sizeof(float);
    const RowBlock rows(p.current_row, p.rows, block);
    for (int64_t s = 0; s < std::min<int64_t>(8, p.timesteps - t); ++s) {
        const float* current = p.current + (t + s) * p.step_stride + job.output * p.output_stride;
        if (rows.side_by_side)
            for (int64_t n = 0; n < job.outputs; ++n)
                __builtin_prefetch(current + rows.offset[0] + n * p.output_stride, 1);
        else if (p.output_stride == 1)
            for (int lane = 0; lane < rows.lanes; ++lane)
                for (int64_t n = 0; n < job.outputs; n += kLine) __builtin_prefetch(current + rows.offset[lane] + n, 1);
    }
}

// What every thread reads of a product.
struct Prepared {
    Prepared(const SpikeGemmProblem& problem, const SpikeGemmKernels& kernels, int threads)
        : p(problem), dense(dense_kernels_for(problem)), index(problem, kernels.interleave, dense, threads) {}

    // The share of the cache that the tables of an output take.
    double share() const {
        const int64_t bytes = std::max<int64_t>(index.blocks, 1) * dense.block_table * int64_t{sizeof(int32_t)};
        return static_cast<double>(bytes) / static_cast<double>(dense.cache_bytes);
    }

    const SpikeGemmProblem& p;
    const DenseKernels& dense;
    const IndexWords index;
};

// The tiles of a product that one thread makes.
class Tiles {
  public:
    Tiles(const Prepared& prepared, const SpikeGemmKernels& kernels, int64_t outputs)
        : p_(prepared.p),
          index_(prepared.index),
          dense_(prepared.dense),
          to_fixed_point_(kernels.to_fixed_point),
          tables_(p_, dense_, outputs),
          words_(p_.output_bytes ? index_.blocks * dense_.block_index + 1 : 0),
          tile_(8 * kMostOutputs * kLanes) {
        std::fill_n(row_, kLanes, 1.f);
    }

    void begin(const Job& job) { tables_.build(p_, to_fixed_point_, job); }

    // Currents [8][outputs][16].
    float* of(const Job& job, int64_t t, int64_t block) {
        const int64_t first_row = block * kLanes;
        if (p_.row_amplitude && t == 0)
            std::copy_n(p_.row_amplitude + first_row, std::min<int64_t>(kLanes, p_.rows - first_row), row_);
        if (!p_.output_bytes) {
            dense_.accumulate(index_.at(t / 8, block), tables_.data(), tables_.unit, tables_.bias, row_, index_.blocks,
                              static_cast<int>(job.outputs), tile_.data(), job.outputs * kLanes);
            return tile_.data();
        }
        for (int64_t n = 0; n < job.outputs; ++n) {
            index_.fill(t / 8, block, job.output + n, words_.data());
            dense_.accumulate(words_.data(), tables_.of_output(n), tables_.unit + n, tables_.bias + n, row_,
                              index_.blocks, 1, tile_.data() + n * kLanes, job.outputs * kLanes);
        }
        return tile_.data();
    }

  private:
    const SpikeGemmProblem& p_;
    const IndexWords& index_;
    const DenseKernels& dense_;
    const ToFixedPoint to_fixed_point_;
    Tables tables_;
    Aligned<uint32_t> words_;  // of the inputs that an output has of its own
    Aligned<float> tile_;
    float row_[kLanes];  // what the spikes of each row are worth
};

// Calls visitor.take(job, first step, block of rows, currents of the tile [8][outputs][16]) with all groups of a block
// of rows in order, so that a neuron can follow; before each, visitor.expect(job, first step, block of rows). The
// currents of further products of the same rows and outputs are added to those of the first.
template <class MakeVisitor>
void for_each_tile(const std::vector<SpikeGemmProblem>& products, int threads, MakeVisitor make_visitor) {
    const SpikeGemmKernels& kernels = *tile_kernels_here().spike_gemm;
    threads = std::max(threads, 1);
    std::deque<Prepared> prepared;
    double share = 0;
    int at_once = 1;
    for (const SpikeGemmProblem& product : products) {
        prepared.emplace_back(product, kernels, threads);
        share += prepared.back().share();
        at_once = std::max(at_once, prepared.back().dense.outputs_at_once);
    }
    const SpikeGemmProblem& p = products[0];
    const int64_t outputs = outputs_of_job(share, at_once);
    const std::vector<Job> jobs = jobs_of(p, prepared[0].index.row_blocks, outputs, threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::deque<Tiles> tiles;
        for (const Prepared& product : prepared) tiles.emplace_back(product, kernels, outputs);
        auto visitor = make_visitor();
#pragma omp for schedule(dynamic)
        for (size_t j = 0; j < jobs.size(); ++j) {
            const Job& job = jobs[j];
            for (Tiles& product : tiles) product.begin(job);
            for (int64_t block = job.first_block; block < job.last_block; ++block)
                for (int64_t t = 0; t < p.timesteps; t += 8) {
                    visitor.expect(job, t, block);
                    float* const tile = tiles[0].of(job, t, block);
                    for (size_t i = 1; i < tiles.size(); ++i)
                        kernels.add_currents(tiles[i].of(job, t, block), 8 * job.outputs * kLanes, tile);
                    visitor.take(job, t, block, tile);
                }
        }
    }
}

// Writes the currents of a tile. Neighbours in memory are the rows of a convolution or the outputs of a linear map.
struct StoreCurrents {
    void expect(const Job& job, int64_t t, int64_t block) const { prefetch_currents(p, job, t, block); }
    void take(const Job& job, int64_t t, int64_t block, const float* tile) const;

    const SpikeGemmProblem& p;
    const Stores stores{p.streams};
};

void StoreCurrents::take(const Job& job, int64_t t, int64_t block, const float* tile) const {
    const RowBlock rows(p.current_row, p.rows, block);
    const int64_t* row = rows.offset;
    for (int64_t s = 0; s < std::min<int64_t>(8, p.timesteps - t); ++s, tile += job.outputs * kLanes) {
        float* out = p.current + (t + s) * p.step_stride + job.output * p.output_stride;
        int64_t n = 0;
        if (rows.side_by_side && rows.lanes == kLanes) {
            stores.copy_lines(tile, kLanes, job.outputs, out + row[0], p.output_stride);
            n = job.outputs;
        } else if (p.output_stride == 1 && rows.lanes == kLanes) {
            for (; n + kLanes <= job.outputs; n += kLanes) {
                float* to[kLanes];
                for (int lane = 0; lane < kLanes; ++lane) to[lane] = out + row[lane] + n;
                stores.transpose(tile + n * kLanes, kLanes, to);
            }
        }
        for (int lane = 0; lane < rows.lanes; ++lane)
            for (int64_t i = n; i < job.outputs; ++i) out[row[lane] + i * p.output_stride] = tile[i * kLanes + lane];
    }
}

// The neurons behind a block of outputs and rows: their state stays with the thread from the first byte group to the
// last.
class NeuronBlock {
  public:
    NeuronBlock(const SpikeGemmProblem& gemm, const SpikeResidual& residual, const NeuronProblem& neuron)
        : gemm_(gemm), residual_(residual), neuron_(neuron), fields_(neuron, kFusedTile) {}

    void expect(const Job& job, int64_t t, int64_t block) const {
        prefetch_currents(gemm_, job, t, block);
        if (t > 0) return;
        for (int64_t n = 0; n < job.outputs; ++n) fields_.prefetch((job.output + n) * gemm_.rows + block * kLanes);
    }

    void take(const Job& job, int64_t t, int64_t block, float* current) {
        const int64_t row = block * kLanes;
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, gemm_.rows - row));
        if (t == 0)
            for (int64_t n = 0; n < job.outputs; ++n)
                fields_.load((job.output + n) * gemm_.rows + row, lanes, n * kLanes);
        if (gemm_.current) add_currents(job, t, block, current);
        if (residual_.bytes) add_train(job, t, block, current);
        const Tile tile = fields_.tile(static_cast<int>(job.outputs) * kLanes);
        const int steps = static_cast<int>(std::min<int64_t>(8, gemm_.timesteps - t));
        TileCurrents currents{};
        for (int s = 0; s < steps; ++s) currents.step[0][s] = current + int64_t{s} * tile.count;
        uint8_t bytes[kFusedTile];
        kernel_(tile, currents, neuron_.eta + t, steps, bytes);
        for (int64_t n = 0; n < job.outputs; ++n)
            std::memcpy(neuron_.bytes + t / 8 * neuron_.neurons + (job.output + n) * gemm_.rows + row,
                        bytes + n * kLanes, lanes);
        if (t + 8 >= gemm_.timesteps)
            for (int64_t n = 0; n < job.outputs; ++n)
                fields_.save((job.output + n) * gemm_.rows + row, lanes, n * kLanes);
    }

  private:
    void add_currents(const Job& job, int64_t t, int64_t block, float* current) const {
        const RowBlock rows(gemm_.current_row, gemm_.rows, block);
        for (int64_t s = 0; s < std::min<int64_t>(8, gemm_.timesteps - t); ++s)
            for (int64_t n = 0; n < job.outputs; ++n, current += kLanes) {
                const float* from =
                    gemm_.current + (t + s) * gemm_.step_stride + (job.output + n) * gemm_.output_stride;
                if (rows.side_by_side)
                    for (int lane = 0; lane < rows.lanes; ++lane) current[lane] += from[rows.offset[0] + lane];
                else
                    for (int lane = 0; lane < rows.lanes; ++lane) current[lane] += from[rows.offset[lane]];
            }
    }

    void add_train(const Job& job, int64_t t, int64_t block, float* current) const {
        const RowBlock rows(residual_.row_offset, gemm_.rows, block);
        const uint8_t* from = residual_.bytes + t / 8 * residual_.group_stride + job.output * residual_.output_stride;
        for (int64_t n = 0; n < job.outputs; ++n, from += residual_.output_stride) {
            uint8_t bytes[kLanes] = {};
            if (rows.side_by_side)
                std::memcpy(bytes, from + rows.offset[0], rows.lanes);
            else
                for (int lane = 0; lane < rows.lanes; ++lane) bytes[lane] = from[rows.offset[lane]];
            float amplitude[kLanes];
            std::fill_n(amplitude, kLanes, residual_.amplitude ? residual_.amplitude[job.output + n] : 1.f);
            kernels_.add_spikes(bytes, amplitude, current + n * kLanes, job.outputs * kLanes);
        }
    }

    const SpikeGemmProblem& gemm_;
    const SpikeResidual& residual_;
    const NeuronProblem& neuron_;
    const SpikeGemmKernels& kernels_ = *tile_kernels_here().spike_gemm;
    TileKernel kernel_ = tile_kernels_here().neuron[neuron_.model];
    NeuronFields fields_;
};

}  // namespace

void spike_gemm_dense_cpu(const SpikeGemmProblem& p, int threads) {
    for_each_tile({p}, threads, [&] { return StoreCurrents{p}; });
}

void spike_gemm_groups_cpu(SpikeGemm product, const SpikeGemmProblem& first, const SpikeGemmGroups& groups,
                           int threads) {
    const bool streams = are_streamed(groups.count * first.timesteps * first.rows * first.outputs);
    const auto one_group = [&](int64_t group, int its_threads) {
        SpikeGemmProblem p = first;
        p.streams = streams;
        p.bytes += group * groups.bytes_stride;
        if (p.weight) p.weight += group * p.outputs * p.inputs;
        if (p.weight8) p.weight8 += group * p.outputs * p.inputs, p.weight_scale += group * p.outputs;
        if (p.amplitude) p.amplitude += group * p.inputs;
        if (p.bias) p.bias += group * p.outputs;
        p.current += group * p.outputs * p.output_stride;
        product(p, its_threads);
    };
    // The product has a parallel region of its own. Inside another one, even of a single thread, that would make and
    // end its threads at every call.
    if (groups.count == 1) return one_group(0, threads);
    const bool small_planes = first.output_stride < kSmallPlane && groups.bytes_stride;
    if (product == spike_gemm_dense_cpu && first.outputs == 1 && small_planes) {
        SpikeGemmProblem p = first;
        p.outputs = groups.count;
        p.output_bytes = groups.bytes_stride;
        p.streams = streams;
        return product(p, threads);
    }
    const int team = team_of(threads, groups.count);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(dynamic)
    for (int64_t group = 0; group < groups.count; ++group) one_group(group, 1);
}

void spike_gemm_signgd_cpu(const std::vector<SpikeGemmProblem>& products, const SpikeResidual& residual,
                           const NeuronProblem& neuron, int threads) {
    for_each_tile(products, threads, [&] { return NeuronBlock(products[0], residual, neuron); });
}

}  // namespace snn
