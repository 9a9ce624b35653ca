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

// Whether row r's inputs are neighbours in memory.
bool inputs_side_by_side(const SpikeGemmProblem& p) {
    for (int64_t k = 1; k < p.inputs; ++k)
        if (p.input_offset[k] != p.input_offset[k - 1] + 1) return false;
    return true;
}

uint32_t word_at(const uint8_t* bytes) {
    return uint32_t{bytes[0]} | uint32_t{bytes[1]} << 8 | uint32_t{bytes[2]} << 16 | uint32_t{bytes[3]} << 24;
}

// word[j][lane] = inputs 4 j .. 4 j + 3 where a row's `count` inputs are neighbours in memory; zeros past the last.
void gather_words(const uint8_t* bytes, const int64_t* lane_offset, int count, int inputs, uint32_t* words) {
    const int whole = count / 4, rest = count % 4;
    for (int lane = 0; lane < kLanes; ++lane) {
        const uint8_t* from = bytes + lane_offset[lane];
        uint32_t* to = words + lane;
        for (int j = 0; j < whole; ++j) to[j * kLanes] = word_at(from + 4 * j);
        for (int j = whole; j < inputs / 4; ++j) to[j * kLanes] = 0;
        for (int i = 0; i < rest; ++i) to[whole * kLanes] |= uint32_t{from[4 * whole + i]} << (8 * i);
    }
}

}  // namespace

IndexWords::IndexWords(const SpikeGemmProblem& p, Interleave interleave, const DenseKernels& dense, int threads)
    : groups((p.timesteps + 7) / 8),
      row_blocks((p.rows + kLanes - 1) / kLanes),
      blocks(dense.blocks(p.inputs)),
      problem_(p),
      interleave_(interleave),
      dense_(dense),
      side_by_side_(inputs_side_by_side(p)),
      words_((p.output_bytes ? 0 : groups * row_blocks * blocks * dense.block_index) + 1) {  // one more: see Accumulate
    if (p.output_bytes) return;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (int64_t job = 0; job < row_blocks * groups; ++job)
        fill(job % groups, job / groups, 0, words_.data() + job * blocks * dense.block_index);
}

void IndexWords::fill(int64_t group, int64_t row_block, int64_t output, uint32_t* out) const {
    const SpikeGemmProblem& p = problem_;
    const uint8_t* bytes = p.bytes + group * p.group_stride + output * p.output_bytes;
    const int64_t row = row_block * kLanes;
    const int inputs = dense_.block_inputs;
    int64_t lane_offset[kLanes];  // past the last row, that row again: nobody reads its sums
    for (int lane = 0; lane < kLanes; ++lane) lane_offset[lane] = p.row_offset[std::min(row + lane, p.rows - 1)];
    const GatherInput gather = gather_of(run_of(lane_offset));
    for (int64_t k = 0; k < p.inputs; k += inputs, out += dense_.block_index) {
        uint32_t words[kMostBlockInputs / 4 * kLanes];
        const int count = static_cast<int>(std::min<int64_t>(inputs, p.inputs - k));
        if (side_by_side_) {
            gather_words(bytes + p.input_offset[k], lane_offset, count, inputs, words);
        } else {
            uint8_t of_input[kMostBlockInputs * kLanes];
            std::memset(of_input + count * kLanes, 0, (inputs - count) * kLanes);
            for (int i = 0; i < count; ++i) gather(bytes + p.input_offset[k + i], lane_offset, of_input + i * kLanes);
            interleave_(of_input, inputs, words);
        }
        dense_.build_index(words, out);
    }
}

EventLists::EventLists(const SpikeGemmProblem& p, int64_t most_rows)
    : problem_(p),
      channels_(p.inputs / p.taps),
      room_(channels_ + kLanes),
      side_by_side_(p.taps == 1 && inputs_side_by_side(p)),
      channel_offset_(channels_),
      scratch_(8 * room_) {
    for (int64_t channel = 0; channel < channels_; ++channel)
        channel_offset_[channel] = p.input_offset[channel * p.taps];
    size_t slots = 2;
    while (slots < 2 * static_cast<size_t>(most_rows * p.taps)) slots *= 2;
    slots_.resize(slots);
}

// A site's spikes at each step, as the numbers of the inputs at the first tap.
void EventLists::collect(const uint8_t* bytes, Lists& lists) {
    const uint32_t taps = static_cast<uint32_t>(problem_.taps);
    int64_t count[8] = {};
    for (int64_t channel = 0; channel < channels_; channel += 8) {
        uint64_t word = 0;
        if (side_by_side_ && channel + 8 <= channels_) {
            const uint8_t* from = bytes + channel_offset_[channel];
            word = uint64_t{word_at(from + 4)} << 32 | word_at(from);
        } else {
            for (int64_t i = 0; i < std::min<int64_t>(8, channels_ - channel); ++i)
                word |= uint64_t{bytes[channel_offset_[channel + i]]} << (8 * i);
        }
        for (; word; word &= word - 1) {
            const int bit = __builtin_ctzll(word), step = bit & 7;
            scratch_[step * room_ + count[step]++] = static_cast<uint32_t>(channel + (bit >> 3)) * taps;
        }
    }
    lists.make_room(8 * channels_);
    for (int step = 0; step < 8; ++step) {
        lists.append(scratch_.data() + step * room_, count[step], 0);
        lists.close();
    }
}

int64_t EventLists::site_at(int64_t offset, const uint8_t* bytes) {
    const uint64_t mask = slots_.size() - 1;
    uint64_t i = (static_cast<uint64_t>(offset) * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (slots_[i].site >= 0 && slots_[i].offset != offset) i = (i + 1) & mask;
    if (slots_[i].site < 0) {
        slots_[i] = {offset, sites_++};
        collect(bytes + offset, of_site_);
    }
    return slots_[i].site;
}

void EventLists::fill(int64_t group, int64_t first_row, int64_t rows) {
    const SpikeGemmProblem& p = problem_;
    const uint8_t* bytes = p.bytes + group * p.group_stride;
    of_row_.clear();
    of_site_.clear();
    sites_ = 0;
    std::fill(slots_.begin(), slots_.end(), Slot{0, -1});
    std::vector<int64_t> site(p.taps);
    for (int64_t row = first_row; row < first_row + rows; ++row) {
        if (p.taps == 1 || p.inputs == 0) {
            collect(bytes + p.row_offset[row], of_row_);
            continue;
        }
        for (int64_t tap = 0; tap < p.taps; ++tap) site[tap] = site_at(p.row_offset[row] + p.input_offset[tap], bytes);
        of_row_.make_room(8 * p.inputs);
        for (int step = 0; step < 8; ++step) {
            for (int64_t tap = 0; tap < p.taps; ++tap) {
                const int64_t list = site[tap] * 8 + step;
                of_row_.append(of_site_.begin(list), of_site_.count(list), static_cast<uint32_t>(tap));
            }
            of_row_.close();
        }
    }
}

}  // namespace snn
