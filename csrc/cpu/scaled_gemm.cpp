// Makes the tables of a row and 16 outputs, or some times as many, and lets all samples and steps add them.
#include "scaled_gemm.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <vector>

#include "neuron_fields.h"
#include "neuron_tile.h"
#include "scaled_operands.h"
#include "spike_gemm_tile.h"
#include "spike_stores.h"

namespace snn {
namespace {

static_assert(kScaledOutputs == kLanes);  // of AddSpikes and Stores
constexpr int64_t kMostColumns = 1024;    // of the sums of a thread: 64 KB for 16 outputs

// Some samples' neurons of a row and 16 outputs.
struct Columns {
    int64_t row, output, outputs, sample, samples;
};

// The tables of one thread, and the sums of its columns.
class Adder {
  public:
    Adder(const ScaledOperands& prepared, int64_t samples)
        : at_(prepared),
          sum_stride_((prepared.groups + 1) * kStepsPerByte * samples * kScaledOutputs),
          tables_(outputs_at_once() * table_stride()),
          sums_(outputs_at_once() * sum_stride_),
          power_(outputs_at_once() * kScaledOutputs),
          unit_(power_.size()),
          bias_(power_.size()),
          runs_(prepared.kernels.blocks_at_once) {
        chunk_.runs = runs_.data(), chunk_.tables = tables_.data();
        chunk_.pattern_stride = prepared.pattern_stride();
        chunk_.table_stride = table_stride(), chunk_.sum_stride = sum_stride_;
    }

    // Those of the blocks of outputs from columns.output on: [step][sample][16 outputs], sum_stride() apart.
    float* sums(const Columns& columns, int64_t output_blocks) {
        first_output_block_ = columns.output / kScaledOutputs;
        place(columns.samples);
        start(columns.row, output_blocks);
        const int64_t first_column_block = columns.sample * at_.groups / 2;
        for (int64_t tap = 0; tap < at_.p.taps; ++tap) {
            const int64_t position = at_.p.row_position[columns.row * at_.p.taps + tap];
            for (int64_t block = 0; position >= 0 && block < at_.input_blocks;) {
                if (blocks_ == at_.kernels.blocks_at_once) add();
                const int64_t count = std::min<int64_t>(at_.kernels.blocks_at_once - blocks_, at_.input_blocks - block);
                build(position, tap, block, count);
                runs_[chunk_.count++] = {at_.patterns(position, first_column_block, block), count};
                block += count, blocks_ += count;
            }
        }
        chunk_.unit = unit_.data(), chunk_.bias = bias_.data();
        add();
        return sums_.data();
    }
    int64_t sum_stride() const { return sum_stride_; }

  private:
    int64_t outputs_at_once() const { return std::min<int64_t>(at_.kernels.outputs_at_once, at_.output_blocks); }
    int64_t table_stride() const { return int64_t{at_.kernels.blocks_at_once} * at_.kernels.table_numbers; }

    // The halves of the blocks of columns, in the order of samples and byte groups; the last may be of no sample.
    void place(int64_t samples) {
        if (chunk_.places.step == samples * kScaledOutputs) return;
        chunk_.places.step = samples * kScaledOutputs;
        half_.clear();
        for (int64_t sample = 0; sample < samples; ++sample)
            for (int64_t group = 0; group < at_.groups; ++group)
                half_.push_back((group * kStepsPerByte * samples + sample) * kScaledOutputs);
        if (half_.size() % 2) half_.push_back(at_.groups * kStepsPerByte * samples * kScaledOutputs);
        chunk_.places.half = half_.data();
        chunk_.column_blocks = static_cast<int64_t>(half_.size()) / 2;
    }

    void start(int64_t row, int64_t output_blocks) {
        chunk_.output_blocks = output_blocks;
        chunk_.first = true, chunk_.unit = nullptr;
        for (int64_t block = 0; block < output_blocks; ++block) {
            const int64_t output = (first_output_block_ + block) * kScaledOutputs;
            float* const power = power_.data() + block * kScaledOutputs;
            at_.find_powers(row, first_output_block_ + block, power);
            for (int64_t i = 0; i < kScaledOutputs; ++i) {
                unit_[block * kScaledOutputs + i] = 1 / power[i];
                bias_[block * kScaledOutputs + i] =
                    at_.p.bias && output + i < at_.p.outputs ? at_.p.bias[output + i] : 0.f;
            }
        }
    }

    void build(int64_t position, int64_t tap, int64_t input_block, int64_t count) {
        for (int64_t block = 0; block < chunk_.output_blocks; ++block)
            at_.kernels.build(at_.weight(first_output_block_ + block, tap, input_block),
                              at_.amplitude(position, input_block), power_.data() + block * kScaledOutputs, count,
                              tables_.data() + block * table_stride() + blocks_ * at_.kernels.table_numbers);
    }

    void add() {
        at_.kernels.add(chunk_, sums_.data());
        blocks_ = 0, chunk_.count = 0, chunk_.first = false;
    }

    const ScaledOperands& at_;
    const int64_t sum_stride_;
    Aligned<int32_t> tables_;
    Aligned<float> sums_;
    std::vector<float> power_, unit_, bias_;  // bias: of the last outputs some are left over, which nobody reads
    std::vector<InputRun> runs_;
    std::vector<int64_t> half_;
    ScaledChunk chunk_{};
    int64_t first_output_block_ = 0, blocks_ = 0;  // of inputs, whose tables are in use
};

// Calls visitor.take(columns, their sums) for all rows, outputs and samples. The sums of further products of the same
// rows and outputs are added to those of the first.
template <class MakeVisitor>
void for_all_columns(const std::vector<ScaledGemmProblem>& products, int threads, MakeVisitor make_visitor) {
    threads = std::max(threads, 1);
    std::deque<ScaledOperands> prepared;
    for (const ScaledGemmProblem& product : products) prepared.emplace_back(product, threads);
    const ScaledGemmProblem& p = products[0];
    int64_t at_once = prepared[0].output_blocks;  // blocks of outputs
    for (const ScaledOperands& product : prepared)
        at_once = std::min<int64_t>(at_once, product.kernels.outputs_at_once);
    const int64_t output_jobs = blocks_of(prepared[0].output_blocks, std::max<int64_t>(at_once, 1));
    const int64_t steps = std::max<int64_t>(prepared[0].groups * kStepsPerByte, 1);
    // An even number: two samples' byte groups fill whole blocks of columns.
    const int64_t samples = std::min(std::max<int64_t>(kMostColumns / steps / 2 * 2, 2), p.samples);
    const int64_t parts = blocks_of(p.samples, samples), row_blocks = std::min<int64_t>(p.rows, 4 * threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::deque<Adder> adders;
        for (const ScaledOperands& product : prepared) adders.emplace_back(product, samples);
        const AddCurrents add_currents = tile_kernels_here().spike_gemm->add_currents;
        auto visitor = make_visitor(samples);
        const auto visit = [&](Columns columns, int64_t output_blocks) {
            float* const sums = adders[0].sums(columns, output_blocks);
            for (size_t i = 1; i < adders.size(); ++i) {
                const float* const more = adders[i].sums(columns, output_blocks);
                for (int64_t block = 0; block < output_blocks; ++block)
                    add_currents(more + block * adders[i].sum_stride(), steps * columns.samples * kScaledOutputs,
                                 sums + block * adders[0].sum_stride());
            }
            for (int64_t block = 0; block < output_blocks; ++block, columns.output += kScaledOutputs) {
                columns.outputs = std::min<int64_t>(kScaledOutputs, p.outputs - columns.output);
                visitor.take(columns, sums + block * adders[0].sum_stride());
            }
        };
#pragma omp for schedule(dynamic) collapse(3)
        for (int64_t part = 0; part < parts; ++part)
            for (int64_t job = 0; job < output_jobs; ++job)
                for (int64_t rows = 0; rows < row_blocks; ++rows)
                    for (int64_t row = rows * p.rows / row_blocks; row < (rows + 1) * p.rows / row_blocks; ++row) {
                        const int64_t sample = part * samples, block = job * at_once;
                        visit({row, block * kScaledOutputs, 0, sample, std::min(samples, p.samples - sample)},
                              std::min(at_once, prepared[0].output_blocks - block));
                    }
    }
}

float* current_of(const ScaledGemmProblem& p, const Columns& columns, int64_t sample, int64_t t) {
    return p.current + t * p.step_stride + (columns.sample + sample) * p.current_sample + p.current_row[columns.row] +
           columns.output * p.output_stride;
}

struct StoreColumns {
    void take(const Columns& columns, const float* sums) const {
        const bool whole = p.output_stride == 1 && columns.outputs == kScaledOutputs;
        for (int64_t t = 0; t < p.timesteps; ++t)
            for (int64_t sample = 0; sample < columns.samples; ++sample) {
                const float* from = sums + (t * columns.samples + sample) * kScaledOutputs;
                float* to = current_of(p, columns, sample, t);
                if (whole)
                    stores.copy_lines(from, kLanes, 1, to, kLanes);
                else
                    for (int64_t n = 0; n < columns.outputs; ++n) to[n * p.output_stride] = from[n];
            }
    }

    const ScaledGemmProblem& p;
    const Stores stores{are_streamed(p.timesteps * p.samples * p.rows * p.outputs)};
};

// The neurons behind some samples' sums: [sample][16 outputs].
class NeuronColumns {
  public:
    NeuronColumns(const ScaledGemmProblem& gemm, const ScaledResidual& residual, const NeuronProblem& neuron,
                  int64_t samples)
        : gemm_(gemm),
          residual_(residual),
          neuron_(neuron),
          fields_(neuron, samples * kScaledOutputs),
          bytes_(samples * kScaledOutputs) {}

    void take(const Columns& columns, float* sums) {
        const int outputs = static_cast<int>(columns.outputs);
        for (int64_t sample = 0; sample < columns.samples; ++sample)
            fields_.load(number(columns, sample), outputs, sample * kScaledOutputs);
        const Tile tile = fields_.tile(static_cast<int>(columns.samples) * kScaledOutputs);
        for (int64_t t = 0; t < gemm_.timesteps; t += kStepsPerByte) {
            const int steps = static_cast<int>(std::min<int64_t>(kStepsPerByte, gemm_.timesteps - t));
            float* const current = sums + t * tile.count;
            if (gemm_.current)
                for (int s = 0; s < steps; ++s) add_currents(columns, t + s, current + s * tile.count);
            if (residual_.bytes) add_train(columns, t / kStepsPerByte, current);
            TileCurrents currents{};
            for (int s = 0; s < steps; ++s) currents.step[0][s] = current + s * tile.count;
            kernel_(tile, currents, neuron_.eta + t, steps, bytes_.data());
            for (int64_t sample = 0; sample < columns.samples; ++sample)
                std::memcpy(neuron_.bytes + t / kStepsPerByte * neuron_.neurons + number(columns, sample),
                            bytes_.data() + sample * kScaledOutputs, columns.outputs);
        }
        for (int64_t sample = 0; sample < columns.samples; ++sample)
            fields_.save(number(columns, sample), outputs, sample * kScaledOutputs);
    }

  private:
    int64_t number(const Columns& columns, int64_t sample) const {
        return ((columns.sample + sample) * gemm_.rows + columns.row) * gemm_.outputs + columns.output;
    }

    void add_currents(const Columns& columns, int64_t t, float* to) const {
        for (int64_t sample = 0; sample < columns.samples; ++sample, to += kScaledOutputs) {
            const float* from = current_of(gemm_, columns, sample, t);
            for (int64_t n = 0; n < columns.outputs; ++n) to[n] += from[n * gemm_.output_stride];
        }
    }

    void add_train(const Columns& columns, int64_t group, float* to) const {
        float amplitude[kScaledOutputs] = {};
        std::copy_n(residual_.amplitude + columns.row * residual_.amplitude_row + columns.output, columns.outputs,
                    amplitude);
        for (int64_t sample = 0; sample < columns.samples; ++sample) {
            const uint8_t* from = residual_.bytes + group * residual_.group_stride +
                                  (columns.sample + sample) * residual_.sample_stride +
                                  residual_.row_offset[columns.row] + columns.output * residual_.output_stride;
            uint8_t bytes[kScaledOutputs] = {};
            for (int64_t n = 0; n < columns.outputs; ++n) bytes[n] = from[n * residual_.output_stride];
            add_spikes_(bytes, amplitude, to + sample * kScaledOutputs, columns.samples * kScaledOutputs);
        }
    }

    const ScaledGemmProblem& gemm_;
    const ScaledResidual& residual_;
    const NeuronProblem& neuron_;
    AddSpikes add_spikes_ = tile_kernels_here().spike_gemm->add_spikes;
    TileKernel kernel_ = tile_kernels_here().neuron[neuron_.model];
    NeuronFields fields_;
    std::vector<uint8_t> bytes_;
};

}  // namespace

void scaled_gemm_cpu(const ScaledGemmProblem& p, int threads) {
    for_all_columns({p}, threads, [&](int64_t) { return StoreColumns{p}; });
}

void scaled_gemm_signgd_cpu(const std::vector<ScaledGemmProblem>& products, const ScaledResidual& residual,
                            const NeuronProblem& neuron, int threads) {
    for_all_columns(products, threads,
                    [&](int64_t samples) { return NeuronColumns(products[0], residual, neuron, samples); });
}

}  // namespace snn
