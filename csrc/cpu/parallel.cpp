#include "parallel.h"

#include <algorithm>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"
#include "team.h"

namespace snn {
namespace {

// The currents of all steps of a tile, widened where they are narrower than float32.
class Currents {
  public:
    Currents(const ParallelProblem& problem, const TileKernels& kernels, int tile)
        : problem_(problem), kernels_(kernels), tile_(tile), steps_(problem.timesteps) {
        if (problem.dtype != DType::float32) widened_.resize(problem.timesteps * tile);
    }

    const float* const* at(int64_t begin, int count) {
        for (int64_t t = 0; t < problem_.timesteps; ++t) {
            const int64_t index = t * problem_.step_stride + begin;
            if (problem_.dtype == DType::float32) {
                steps_[t] = static_cast<const float*>(problem_.current) + index;
                continue;
            }
            float* out = widened_.data() + t * tile_;
            const auto widen = problem_.dtype == DType::float16 ? kernels_.from_float16 : kernels_.from_bfloat16;
            widen(static_cast<const uint16_t*>(problem_.current) + index, out, count);
            steps_[t] = out;
        }
        return steps_.data();
    }

  private:
    const ParallelProblem& problem_;
    const TileKernels& kernels_;
    const int tile_;
    std::vector<const float*> steps_;
    std::vector<float> widened_;
};

}  // namespace

void parallel_cpu(const ParallelProblem& p, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int tile = p.weight ? kMixTile : kCountTile;
    const int64_t tiles = (p.neurons + tile - 1) / tile;
    const int team = team_of(threads, tiles);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        Currents currents(p, kernels, tile);
        float threshold[kCountTile], shift[kCountTile];
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < p.neurons; begin += tile) {
            const int count = static_cast<int>(std::min<int64_t>(tile, p.neurons - begin));
            const float* const* steps = currents.at(begin, count);
            if (p.weight) {
                kernels.mix(steps, p.timesteps, p.weight, p.step_threshold, count, p.bytes + begin, p.neurons);
                continue;
            }
            gather(p.threshold, begin, count, threshold);
            gather(p.shift, begin, count, shift);
            kernels.count(steps, p.timesteps, threshold, shift, count, p.bytes + begin, p.neurons);
        }
    }
}

}  // namespace snn
