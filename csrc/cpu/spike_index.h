// What the two methods of the spike product read: fixed-point weights, and index words (dense) or lists of spikes
// (event-driven).
#pragma once

#include <algorithm>
#include <vector>

#include "memory.h"
#include "spike_gemm.h"
#include "spike_gemm_tile.h"

namespace snn {

// The fixed-point weights of an output and their unit; `scratch` has room for as many floats.
inline float fixed_weights(const SpikeGemmProblem& p, ToFixedPoint to_fixed_point, int64_t output, float* scratch,
                           int32_t* fixed) {
    if (p.weight8) {
        std::copy_n(p.weight8 + output * p.inputs, p.inputs, fixed);
        return p.weight_scale[output];
    }
    const float* const weight = p.weight + output * p.inputs;
    const float* amplitude = p.amplitude && p.output_bytes ? p.amplitude + output * p.inputs : p.amplitude;
    return to_fixed_point(weight, amplitude, p.inputs, scratch, fixed);
}

// What all rows have become for a form of the dense method: [block of 16 rows][byte group][block of inputs]. Where
// every output has inputs of its own nothing is kept: fill() makes what is needed next.
class IndexWords {
  public:
    IndexWords(const SpikeGemmProblem& problem, Interleave interleave, const DenseKernels& dense, int threads);
    const uint32_t* at(int64_t group, int64_t row_block) const {
        return words_.data() + (row_block * groups + group) * blocks * dense_.block_index;
    }

    void fill(int64_t group, int64_t row_block, int64_t output, uint32_t* words) const;

    const int64_t groups, row_blocks, blocks;

  private:
    const SpikeGemmProblem& problem_;
    const Interleave interleave_;
    const DenseKernels& dense_;
    const bool side_by_side_;
    Aligned<uint32_t> words_;
};

// Lists of numbers one after the other in memory.
class Lists {
  public:
    void clear() {
        end_ = 0;
        start_.assign(1, 0);
    }

    void make_room(int64_t count) {
        const size_t needed = end_ + count + kLanes;
        if (values_.size() < needed) values_.resize(2 * needed);
    }

    // Puts values[i] + add at the end of the list that is being written, where there is room. Whole vectors are read
    // and written, as lists are short: the values past the end make way for the next list's.
    void append(const uint32_t* values, int64_t count, uint32_t add) {
        uint32_t* to = values_.data() + end_;
        int64_t i = 0;
        do
            for (int lane = 0; lane < kLanes; ++lane) to[i + lane] = values[i + lane] + add;
        while ((i += kLanes) < count);
        end_ += count;
    }

    void close() { start_.push_back(end_); }
    const uint32_t* begin(int64_t list) const { return values_.data() + start_[list]; }
    int64_t count(int64_t list) const { return start_[list + 1] - start_[list]; }

  private:
    int64_t end_ = 0;
    std::vector<uint32_t> values_;
    std::vector<int64_t> start_;
};

// The inputs that fire, for each of some rows and each of eight steps. Windows of a convolution overlap: the spikes of
// a site, which is an input position with its channels, are collected once for all rows that see it.
class EventLists {
  public:
    EventLists(const SpikeGemmProblem& problem, int64_t most_rows);
    void fill(int64_t group, int64_t first_row, int64_t rows);
    const uint32_t* begin(int64_t row, int step) const { return of_row_.begin(row * 8 + step); }
    int64_t count(int64_t row, int step) const { return of_row_.count(row * 8 + step); }

  private:
    int64_t site_at(int64_t offset, const uint8_t* bytes);
    void collect(const uint8_t* bytes, Lists& lists);

    const SpikeGemmProblem& problem_;
    const int64_t channels_, room_;  // room_: of a list in scratch_
    const bool side_by_side_;
    Lists of_site_, of_row_;  // eight each
    std::vector<int64_t> channel_offset_;
    std::vector<uint32_t> scratch_;
    struct Slot {
        int64_t offset, site;
    };
    std::vector<Slot> slots_;  // a hash table from a site's offset in the bytes to its number
    int64_t sites_ = 0;
};

}  // namespace snn
