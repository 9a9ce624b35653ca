// What the two methods of the spike product read: index words (dense) and lists of spikes (event-driven).
#pragma once

#include <vector>

#include "memory.h"
#include "spike_gemm.h"
#include "spike_gemm_tile.h"

namespace snn {

// Whether row r's inputs are neighbours in memory.
bool inputs_side_by_side(const SpikeGemmProblem& problem);

// Index words of all rows: [block of 16 rows][byte group][block of 20 inputs][8 steps][16 rows].
class IndexWords {
  public:
    IndexWords(const SpikeGemmProblem& problem, const SpikeGemmKernels& kernels, int threads);
    const uint32_t* at(int64_t group, int64_t row_block) const {
        return words_.data() + (row_block * groups + group) * blocks * kBlockIndex;
    }

    const int64_t groups, row_blocks, blocks;

  private:
    void fill(const SpikeGemmProblem& problem, const SpikeGemmKernels& kernels, const uint8_t* bytes, int64_t row,
              uint32_t* out) const;

    bool side_by_side_;
    Aligned<uint32_t> words_;
};

// The inputs that fire, for each of some rows and each of eight steps.
class EventLists {
  public:
    explicit EventLists(const SpikeGemmProblem& problem)
        : problem_(problem), side_by_side_(inputs_side_by_side(problem)), of_step_(8 * problem.inputs) {}
    void fill(int64_t group, int64_t first_row, int64_t rows);
    const uint32_t* begin(int64_t row, int step) const { return events_.data() + start_[row * 8 + step]; }
    int64_t count(int64_t row, int step) const { return start_[row * 8 + step + 1] - start_[row * 8 + step]; }

  private:
    const SpikeGemmProblem& problem_;
    bool side_by_side_;
    std::vector<uint32_t> events_, of_step_;
    std::vector<int64_t> start_;
};

}  // namespace snn
