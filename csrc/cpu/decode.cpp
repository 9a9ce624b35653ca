#include "decode.h"

#include <algorithm>

#include "neuron_tile.h"
#include "operand.h"
#include "team.h"
#include "tile_input.h"

namespace snn {

void decode_cpu(const DecodeProblem& p, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int64_t tiles = (p.neurons + kTile - 1) / kTile;
    const int team = team_of(threads, tiles);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        TileInput input(p.input, kernels, kTile, 1);
        float offset[kTile], first[kTile];
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t begin = tile * kTile;
            const int count = static_cast<int>(std::min<int64_t>(kTile, p.neurons - begin));
            input.move_to(begin, count);
            gather(p.offset, begin, count, offset);
            gather(p.x, begin, count, first);
            const float* x = first;
            for (int64_t t = 0; t < p.timesteps; ++t) {
                float* const out = p.out + t * p.neurons + begin;
                kernels.decode(x, input.at(t, 0), offset, p.eta[t], count, out);
                x = out;
            }
        }
    }
}

}  // namespace snn
