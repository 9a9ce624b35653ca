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
    Currents(const ParallelProblem& problem, const TileKernels& kernels)
        : problem_(problem), kernels_(kernels), steps_(problem.timesteps) {
        if (problem.dtype != DType::float32) widened_.resize(problem.timesteps * kParallelTile);
    }

    const float* const* at(int64_t begin, int count) {
        for (int64_t t = 0; t < problem_.timesteps; ++t) {
            const int64_t index = t * problem_.step_stride + begin;
            if (problem_.dtype == DType::float32) {
                steps_[t] = static_cast<const float*>(problem_.current) + index;
                continue;
            }
            float* out = widened_.data() + t * kParallelTile;
            const auto widen = problem_.dtype == DType::float16 ? kernels_.from_float16 : kernels_.from_bfloat16;
            widen(static_cast<const uint16_t*>(problem_.current) + index, out, count);
            steps_[t] = out;
        }
        return steps_.data();
    }

  private:
    const ParallelProblem& problem_;
    const TileKernels& kernels_;
    std::vector<const float*> steps_;
    std::vector<float> widened_;
};

}  // namespace

void parallel_cpu(const ParallelProblem& p, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int64_t tiles = (p.neurons + kParallelTile - 1) / kParallelTile;
    const int team = team_of(threads, tiles);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        Currents currents(p, kernels);
        float threshold[kParallelTile], shift[kParallelTile];
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t begin = tile * kParallelTile;
            const int count = static_cast<int>(std::min<int64_t>(kParallelTile, p.neurons - begin));
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
