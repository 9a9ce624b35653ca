// Spreads vectors over threads and carries each through all time-steps.
#include "vector.h"

#include <algorithm>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"
#include "team.h"
#include "tile_input.h"

namespace snn {
namespace {

class VectorWorker {
  public:
    VectorWorker(const VectorProblem& problem, const TileKernels& kernels)
        : p_(problem),
          kernels_(kernels),
          input_(problem.input, kernels, problem.length, kStepsPerByte),
          memory_((4 + kStepsPerByte) * problem.length),
          fired_(problem.length) {}

    void run(int64_t begin) {
        const auto count = static_cast<int>(p_.length);
        float* const scratch = memory_.data();
        input_.move_to(begin, count);
        const Operand* const operands[] = {&p_.offset, &p_.scale, &p_.a, &p_.b};
        for (int k = 0; k < 4; ++k) gather(*operands[k], begin, count, scratch + k * p_.length);
        gather(p_.x, begin, count, p_.x_out + begin);
        gather(p_.v, begin, count, p_.v_out + begin);
        const VectorTile tile{
            p_.length, p_.x_out + begin,    p_.v_out + begin,        scratch + 4 * p_.length, fired_.data(),
            scratch,   scratch + p_.length, scratch + 2 * p_.length, scratch + 3 * p_.length, p_.eps};
        for (int64_t t = 0; t < p_.timesteps; t += kStepsPerByte) {
            const int steps = static_cast<int>(std::min<int64_t>(kStepsPerByte, p_.timesteps - t));
            const float* current[kStepsPerByte];
            for (int s = 0; s < steps; ++s) current[s] = input_.at(t + s, s);
            kernels_.vector[p_.function](tile, current, p_.eta + t, steps,
                                         p_.bytes + t / kStepsPerByte * p_.neurons + begin);
        }
    }

  private:
    const VectorProblem& p_;
    const TileKernels& kernels_;
    TileInput input_;
    std::vector<float> memory_;
    std::vector<uint32_t> fired_;
};

}  // namespace

void vector_cpu(const VectorProblem& p, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int64_t vectors = p.neurons / p.length;
    const int team = team_of(threads, vectors);
#pragma omp parallel num_threads(team) if (team > 1)
    {
        VectorWorker worker(p, kernels);
#pragma omp for schedule(static)
        for (int64_t vector = 0; vector < vectors; ++vector) worker.run(vector * p.length);
    }
}

}  // namespace snn
