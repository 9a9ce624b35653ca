// Prepares patterns and weights once, makes the tables of a row and 16 outputs, and lets all samples and steps add
// them.
#include "scaled_gemm.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <vector>

#include "memory.h"
#include "neuron_fields.h"
#include "neuron_tile.h"
#include "scaled_gemm_tile.h"
#include "spike_gemm_tile.h"
#include "spike_stores.h"

namespace snn {
namespace {

static_assert(kScaledOutputs == kLanes);  // of AddSpikes
constexpr int kTables = 32;               // that are in use at once: 32 KB
constexpr int64_t kMostColumns = 1024;    // of the sums of a thread: 64 KB

int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple; }

// Byte s of spread[byte] is bit s of `byte`, times kPatternUnit.
constexpr std::array<uint64_t, 256> spread_bits() {
    std::array<uint64_t, 256> spread{};
    for (int byte = 0; byte < 256; ++byte)
        for (int s = 0; s < 8; ++s)
            if (byte >> s & 1) spread[byte] |= uint64_t{kPatternUnit} << 8 * s;
    return spread;
}
constexpr std::array<uint64_t, 256> kSpread = spread_bits();

// What every thread reads. Columns are numbered [sample][byte group][8 steps].
class Prepared {
  public:
    Prepared(const ScaledGemmProblem& problem, int threads)
        : p(problem),
          groups(up(p.timesteps, kStepsPerByte)),
          quads(up(p.channels, kQuad)),
          blocks(up(p.samples * groups * kStepsPerByte, kColumns)),
          output_blocks(up(p.outputs, kScaledOutputs)),
          patterns_(p.positions * blocks * quads * kColumns),
          weight_(output_blocks * p.taps * quads * kQuad * kScaledOutputs),
          amplitude_(p.positions * quads * kQuad) {
#pragma omp parallel num_threads(threads) if (threads > 1)
        {
#pragma omp for schedule(static) nowait
            for (int64_t position = 0; position < p.positions; ++position) fill_position(position);
#pragma omp for schedule(static)
            for (int64_t block = 0; block < output_blocks; ++block) fill_weights(block);
        }
    }

    // Of a position from a block of columns and a quad on; blocks lie block_stride() apart.
    const uint8_t* patterns(int64_t position, int64_t block, int64_t quad) const {
        return patterns_.data() + ((position * blocks + block) * quads + quad) * kColumns;
    }
    int64_t block_stride() const { return quads * kColumns; }
    const float* weight(int64_t output_block, int64_t tap, int64_t quad) const {
        return weight_.data() + ((output_block * p.taps + tap) * quads + quad) * kQuad * kScaledOutputs;
    }
    const float* amplitude(int64_t position, int64_t quad) const {
        return amplitude_.data() + (position * quads + quad) * kQuad;
    }

    const ScaledGemmProblem& p;
    const int64_t groups, quads, blocks, output_blocks;

  private:
    void fill_position(int64_t position) {
        float* const amplitude = amplitude_.data() + position * quads * kQuad;
        std::copy_n(p.amplitude + position * p.channels, p.channels, amplitude);
        std::fill(amplitude + p.channels, amplitude + quads * kQuad, 0.f);
        uint8_t* const to = patterns_.data() + position * blocks * quads * kColumns;
        for (int64_t half = 0; half < 2 * blocks; ++half) {  // eight steps of a sample
            const int64_t sample = half / std::max<int64_t>(groups, 1), group = half - sample * groups;
            const uint8_t* from =
                p.bytes + group * p.group_stride + sample * p.sample_stride + p.position_offset[position];
            for (int64_t quad = 0; quad < quads; ++quad) {
                uint64_t patterns = 0;
                const int64_t inputs = std::min<int64_t>(kQuad, p.channels - quad * kQuad);
                for (int64_t i = 0; sample < p.samples && i < inputs; ++i)
                    patterns |= kSpread[from[(quad * kQuad + i) * p.channel_stride]] << i;
                std::memcpy(to + ((half / 2) * quads + quad) * kColumns + half % 2 * kStepsPerByte, &patterns,
                            sizeof(patterns));
            }
        }
    }

    void fill_weights(int64_t block) {
        float* to = weight_.data() + block * p.taps * quads * kQuad * kScaledOutputs;
        for (int64_t tap = 0; tap < p.taps; ++tap)
            for (int64_t c = 0; c < quads * kQuad; ++c)
                for (int64_t n = block * kScaledOutputs; n < (block + 1) * kScaledOutputs; ++n)
                    *to++ = c < p.channels && n < p.outputs ? p.weight[(n * p.channels + c) * p.taps + tap] : 0.f;
    }

    Aligned<uint8_t> patterns_;
    Aligned<float> weight_, amplitude_;
};

// Some samples' neurons of a row and 16 outputs.
struct Columns {
    int64_t row, output, outputs, sample, samples;
};

// The tables of one thread, and the sums of its columns.
class Adder {
  public:
    Adder(const Prepared& prepared, int64_t samples)
        : at_(prepared),
          tables_(kTables * kTableFloats),
          sums_((prepared.groups + 1) * kStepsPerByte * samples * kScaledOutputs) {}

    // [step][sample][16 outputs]
    float* sums(const Columns& columns) {
        place(columns.samples);
        first_block_ = columns.sample * at_.groups / 2;
        if (at_.p.bias) std::copy_n(at_.p.bias + columns.output, columns.outputs, bias_);
        start_ = bias_;
        for (int64_t tap = 0; tap < at_.p.taps; ++tap) {
            const int64_t position = at_.p.row_position[columns.row * at_.p.taps + tap];
            for (int64_t quad = 0; position >= 0 && quad < at_.quads;) {
                const int64_t count = std::min<int64_t>(kTables - tables_in_use_, at_.quads - quad);
                kernels_.build(at_.weight(columns.output / kScaledOutputs, tap, quad), at_.amplitude(position, quad),
                               count, tables_.data() + tables_in_use_ * kTableFloats);
                runs_[count_++] = {at_.patterns(position, first_block_, quad), count};
                quad += count;
                tables_in_use_ += count;
                if (tables_in_use_ == kTables) add();
            }
        }
        if (count_ || start_) add();
        return sums_.data();
    }

  private:
    // The halves of the blocks of columns, in the order of samples and byte groups; the last may be of no sample.
    void place(int64_t samples) {
        if (places_.step == samples * kScaledOutputs) return;
        places_.step = samples * kScaledOutputs;
        half_.clear();
        for (int64_t sample = 0; sample < samples; ++sample)
            for (int64_t group = 0; group < at_.groups; ++group)
                half_.push_back((group * kStepsPerByte * samples + sample) * kScaledOutputs);
        if (half_.size() % 2) half_.push_back(at_.groups * kStepsPerByte * samples * kScaledOutputs);
        places_.half = half_.data();
    }

    void add() {
        kernels_.add(runs_, count_, tables_.data(), static_cast<int64_t>(half_.size()) / 2, at_.block_stride(), start_,
                     places_, sums_.data());
        tables_in_use_ = 0, count_ = 0, start_ = nullptr;
    }

    const Prepared& at_;
    const ScaledGemmKernels& kernels_ = *tile_kernels_here().scaled_gemm;
    Aligned<float> tables_, sums_;
    std::vector<int64_t> half_;
    SumPlaces places_{nullptr, 0};
    QuadRun runs_[kTables];
    float bias_[kScaledOutputs] = {};  // of the last outputs some are left over, which nobody reads
    const float* start_ = nullptr;
    int64_t first_block_ = 0, tables_in_use_ = 0;
    int count_ = 0;
};

// Calls visitor.take(columns, their sums) for all rows, outputs and samples. The sums of further products of the same
// rows and outputs are added to those of the first.
template <class MakeVisitor>
void for_all_columns(const std::vector<ScaledGemmProblem>& products, int threads, MakeVisitor make_visitor) {
    threads = std::max(threads, 1);
    std::deque<Prepared> prepared;
    for (const ScaledGemmProblem& product : products) prepared.emplace_back(product, threads);
    const ScaledGemmProblem& p = products[0];
    const int64_t output_blocks = prepared[0].output_blocks;
    const int64_t steps = std::max<int64_t>(prepared[0].groups * kStepsPerByte, 1);
    // An even number: two samples' byte groups fill whole blocks of columns.
    const int64_t samples = std::min(std::max<int64_t>(kMostColumns / steps / 2 * 2, 2), p.samples);
    const int64_t parts = up(p.samples, samples), row_blocks = std::min<int64_t>(p.rows, 4 * threads);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::deque<Adder> adders;
        for (const Prepared& product : prepared) adders.emplace_back(product, samples);
        const AddCurrents add_currents = tile_kernels_here().spike_gemm->add_currents;
        auto visitor = make_visitor(samples);
#pragma omp for schedule(dynamic) collapse(3)
        for (int64_t part = 0; part < parts; ++part)
            for (int64_t block = 0; block < output_blocks; ++block)
                for (int64_t rows = 0; rows < row_blocks; ++rows)
                    for (int64_t row = rows * p.rows / row_blocks; row < (rows + 1) * p.rows / row_blocks; ++row) {
                        const int64_t output = block * kScaledOutputs, sample = part * samples;
                        const Columns columns{row, output, std::min<int64_t>(kScaledOutputs, p.outputs - output),
                                              sample, std::min(samples, p.samples - sample)};
                        float* const sums = adders[0].sums(columns);
                        for (size_t i = 1; i < adders.size(); ++i)
                            add_currents(adders[i].sums(columns), steps * columns.samples * kScaledOutputs, sums);
                        visitor.take(columns, sums);
                    }
    }
}

float* current_of(const ScaledGemmProblem& p, const Columns& columns, int64_t sample, int64_t t) {
    return p.current + t * p.step_stride + (columns.sample + sample) * p.current_sample + p.current_row[columns.row] +
           columns.output * p.output_stride;
}

static_assert(kScaledOutputs == kLanes);

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
