// Cuts a population into tiles, spreads the tiles over threads and carries each through all time-steps.
#include "neuron.h"

#include <algorithm>
#include <vector>

#include "neuron_tile.h"
#include "operand.h"
#include "team.h"
#include "tile_input.h"

namespace snn {
namespace {

// An operand that a tile only reads: taken where it lies when it is dense there, gathered otherwise.
class TileOperand {
  public:
    explicit TileOperand(const Operand& operand) : operand_(operand), values_(kTile) {
        if (uniform()) std::fill(values_.begin(), values_.end(), operand_.data[0]);
    }
    const float* at(int64_t begin, int count) {
        if (uniform()) return values_.data();
        const int64_t phase = begin % operand_.period;
        if (operand_.inner == 1 && phase + count <= operand_.period) return operand_.data + phase;
        gather(operand_, begin, count, values_.data());
        return values_.data();
    }

  private:
    bool uniform() const { return operand_.period == 1; }
    Operand operand_;
    std::vector<float> values_;
};

// Of trains fewer neurons are carried at once: their currents of eight steps are to stay in the L1 cache too.
constexpr int kTrainTile = kTile / 4;
constexpr int64_t kCacheBytes = 16 << 20;  // currents up to this size may still lie in a cache

// One thread's view of the problem and its scratch memory.
class Worker {
  public:
    Worker(const NeuronProblem& problem, const TileKernels& kernels)
        : problem_(problem), kernels_(kernels), scale_(problem.scale) {
        for (int k = 0; k < kParameters; ++k) parameters_.emplace_back(problem.parameter[k]);
        for (int k = 0; k < problem.arity; ++k) {
            offsets_.emplace_back(problem.input[k].offset);
            if (problem.input[k].received.train)
                trains_.emplace_back(problem.input[k].received, kernels, kTrainTile, kStepsPerByte);
        }
    }

    void run(int64_t begin, int count) {
        Tile tile{};
        tile.count = count;
        tile.v = problem_.v_out + begin;
        gather(problem_.v, begin, count, tile.v);
        tile.scale = scale_.at(begin, count);
        for (int k = 0; k < kParameters; ++k) tile.parameter[k] = parameters_[k].at(begin, count);
        for (int k = 0; k < problem_.arity; ++k) {
            const NeuronInput& input = problem_.input[k];
            tile.offset[k] = offsets_[k].at(begin, count);
            if (input.x_out) gather(input.x, begin, count, tile.x[k] = input.x_out + begin);
            if (input.m) tile.m_x[k] = input.m + begin;
        }
        for (TileInput& train : trains_) train.move_to(begin, count);
        if (problem_.m) tile.m_v = problem_.m + begin;
        tile.momentum = problem_.momentum;
        tile.nesterov = problem_.nesterov;
        uint8_t* bytes = problem_.bytes + begin;
        for (int64_t t = 0; t < problem_.timesteps; t += kStepsPerByte, bytes += problem_.neurons) {
            const int steps = static_cast<int>(std::min<int64_t>(kStepsPerByte, problem_.timesteps - t));
            const TileCurrents now = currents(t, steps, begin);
            kernels_.neuron[problem_.model](tile, now, problem_.eta + t, steps, bytes);
        }
    }

  private:
    TileCurrents currents(int64_t t, int steps, int64_t begin) {
        TileCurrents out{};
        out.dtype = problem_.input[0].received.dtype;
        for (size_t k = 0; k < trains_.size(); ++k)
            for (int s = 0; s < steps; ++s) out.step[k][s] = trains_[k].at(t + s, s);
        if (!trains_.empty()) return out;
        const int64_t size = out.dtype == DType::float32 ? 4 : 2;
        out.far = problem_.timesteps * problem_.neurons * size > kCacheBytes;
        for (int k = 0; k < problem_.arity; ++k) {
            const Input& input = problem_.input[k].received;
            for (int s = 0; s < steps; ++s)
                out.step[k][s] = static_cast<const char*>(input.current) + ((t + s) * input.stride + begin) * size;
        }
        return out;
    }

    const NeuronProblem& problem_;
    const TileKernels& kernels_;
    TileOperand scale_;
    std::vector<TileOperand> parameters_, offsets_;
    std::vector<TileInput> trains_;
};

}  // namespace

void neuron_cpu(const NeuronProblem& problem, int threads) {
    const TileKernels& kernels = tile_kernels_here();
    const int64_t size = problem.input[0].received.train ? kTrainTile : kTile;
    const int64_t tiles = (problem.neurons + size - 1) / size;
    // Threads are worth waking for about a hundred microseconds of work.
    const int64_t worthwhile = problem.neurons * (problem.timesteps + 4) / 65536 + 1;
    const int team = team_of(threads, std::min(tiles, worthwhile));
#pragma omp parallel num_threads(team) if (team > 1)
    {
        Worker worker(problem, kernels);
#pragma omp for schedule(static)
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t begin = tile * size;
            worker.run(begin, static_cast<int>(std::min(size, problem.neurons - begin)));
        }
    }
}

}  // namespace snn
