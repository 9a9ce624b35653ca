#include "parallel.h"

#include <algorithm>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"
#include "team.h"
#include "tile_input.h"

namespace snn {

void parallel_cpu(const ParallelProblem& p, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int tile = p.weight ? kMixTile : kCountTile;
    const int64_t tiles = (p.neurons + tile - 1) / tile;
    const int team = team_of(threads, tiles);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        TileInput input(p.input, kernels, tile, p.timesteps);
        std::vector<const float*> current(p.timesteps);
        float threshold[kCountTile], shift[kCountTile];
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < p.neurons; begin += tile) {
            const int count = static_cast<int>(std::min<int64_t>(tile, p.neurons - begin));
            input.move_to(begin, count);
            for (int64_t t = 0; t < p.timesteps; ++t) current[t] = input.at(t, t);
            if (p.weight) {
                kernels.mix(current.data(), p.timesteps, p.weight, p.step_threshold, count, p.bytes + begin, p.neurons);
                continue;
            }
            gather(p.threshold, begin, count, threshold);
            gather(p.shift, begin, count, shift);
            kernels.count(current.data(), p.timesteps, threshold, shift, count, p.bytes + begin, p.neurons);
        }
    }
}

}  // namespace snn
