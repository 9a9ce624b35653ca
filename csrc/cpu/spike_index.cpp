#include "spike_index.h"

#include <algorithm>
#include <cstring>

namespace snn {
namespace {

// How many rows in a row are neighbours in memory: the longest of 16, 8 and 4 that all sixteen divide into, or 1.
int run_of(const int64_t* lane_offset) {
    for (int run : {16, 8, 4}) {
        bool whole = true;
        for (int lane = 1; lane < kLanes; ++lane)
            whole &= lane % run == 0 || lane_offset[lane] == lane_offset[lane - 1] + 1;
        if (whole) return run;
    }
    return 1;
}

// The bytes of one input for sixteen rows.
template <int Run>
void gather_input(const uint8_t* bytes, const int64_t* lane_offset, uint8_t* out) {
    for (int lane = 0; lane < kLanes; lane += Run) std::memcpy(out + lane, bytes + lane_offset[lane], Run);
}

using GatherInput = void (*)(const uint8_t* bytes, const int64_t* lane_offset, uint8_t* out);

GatherInput gather_of(int run) {
    return run == 16 ? gather_input<16> : run == 8 ? gather_input<8> : run == 4 ? gather_input<4> : gather_input<1>;
}

uint32_t word_at(const uint8_t* bytes) {
    return uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
}

}  // namespace

bool inputs_side_by_side(const SpikeGemmProblem& p) {
    for (int64_t k = 1; k < p.inputs; ++k)
        if (p.input_offset[k] != p.input_offset[k - 1] + 1) return false;
    return true;
}

IndexWords::IndexWords(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, int threads)
    : groups((p.timesteps + 7) / 8),
      row_blocks((p.rows + kLanes - 1) / kLanes),
      blocks(input_blocks(p.inputs)),
      side_by_side_(inputs_side_by_side(p)),
      words_(groups * row_blocks * blocks * kBlockIndex + 1) {  // one more: see Accumulate
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t job = 0; job < row_blocks * groups; ++job)
        fill(p, kernels, p.bytes + job % groups * p.group_stride, job / groups * kLanes,
             words_.data() + job * blocks * kBlockIndex);
}

void IndexWords::fill(const SpikeGemmProblem& p, const SpikeGemmKernels& kernels, const uint8_t* bytes, int64_t row,
                      uint32_t* out) const {
    int64_t lane_offset[kLanes];  // past the last row, that row again: nobody reads its sums
    for (int lane = 0; lane < kLanes; ++lane) lane_offset[lane] = p.row_offset[std::min(row + lane, p.rows - 1)];
    const GatherInput gather = gather_of(run_of(lane_offset));
    for (int64_t k = 0; k < p.inputs; k += kBlockInputs, out += kBlockIndex) {
        uint32_t words[kInputsPerTable * kLanes];
        const int count = static_cast<int>(std::min<int64_t>(kBlockInputs, p.inputs - k));
        if (side_by_side_ && count == kBlockInputs) {
            for (int lane = 0; lane < kLanes; ++lane) {
                const uint8_t* from = bytes + lane_offset[lane] + p.input_offset[k];
                for (int j = 0; j < kInputsPerTable; ++j) words[j * kLanes + lane] = word_at(from + kTables * j);
            }
        } else {
            uint8_t of_input[kBlockInputs * kLanes] = {};
            for (int i = 0; i < count; ++i) gather(bytes + p.input_offset[k + i], lane_offset, of_input + i * kLanes);
            kernels.interleave(of_input, words);
        }
        kernels.transpose_bits(words, out);
    }
}

void EventLists::fill(int64_t group, int64_t first_row, int64_t rows) {
    const SpikeGemmProblem& p = problem_;
    events_.clear();
    start_.assign(1, 0);
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        const uint8_t* bytes = p.bytes + group * p.group_stride + p.row_offset[row];
        int64_t count[8] = {};
        for (int64_t k = 0; k < p.inputs; k += 8) {
            uint64_t word = 0;
            if (side_by_side_ && k + 8 <= p.inputs) {
                const uint8_t* from = bytes + p.input_offset[k];
                word = uint64_t{word_at(from + 4)} << 32 | word_at(from);
            } else {
                for (int64_t i = 0; i < std::min<int64_t>(8, p.inputs - k); ++i)
                    word |= uint64_t{bytes[p.input_offset[k + i]]} << (8 * i);
            }
            for (; word; word &= word - 1) {
                const int bit = __builtin_ctzll(word), step = bit & 7;
                of_step_[step * p.inputs + count[step]++] = static_cast<uint32_t>(k + (bit >> 3));
            }
        }
        for (int step = 0; step < 8; ++step) {
            const auto from = of_step_.begin() + step * p.inputs;
            events_.insert(events_.end(), from, from + count[step]);
            start_.push_back(static_cast<int64_t>(events_.size()));
        }
    }
}

}  // namespace snn
