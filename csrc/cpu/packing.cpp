#include "packing.h"

#include <algorithm>

#include "team.h"

namespace snn {
namespace {

constexpr int64_t kRun = 4096;  // neurons a thread packs at a time

// Calls visit(first step of the byte group, steps in it, first neuron, neurons) for every run, over threads.
template <class Visit>
void for_each_run(int64_t timesteps, int64_t neurons, int threads, Visit visit) {
    const int64_t groups = (timesteps + 7) / 8, runs = (neurons + kRun - 1) / kRun;
    const int team = team_of(threads, groups * runs);
#pragma omp parallel for num_threads(team) if (team > 1) schedule(static)
    for (int64_t job = 0; job < groups * runs; ++job) {
        const int64_t t = job / runs * 8, n = job % runs * kRun;
        visit(t, std::min<int64_t>(8, timesteps - t), n, std::min(kRun, neurons - n));
    }
}

// `one` is the bit pattern of 1 in the type that is written.
template <class Word>
void unpack_as(const uint8_t* bytes, Word* spikes, Word one, int64_t timesteps, int64_t neurons, int threads) {
    for_each_run(timesteps, neurons, threads, [=](int64_t t, int64_t steps, int64_t n, int64_t count) {
        const uint8_t* from = bytes + t / 8 * neurons + n;
        for (int64_t s = 0; s < steps; ++s) {
            Word* to = spikes + (t + s) * neurons + n;
            for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Word>(-static_cast<Word>(from[i] >> s & 1)) & one;
        }
    });
}

}  // namespace

void pack_cpu(const uint8_t* spikes, uint8_t* bytes, int64_t timesteps, int64_t neurons, int threads) {
    for_each_run(timesteps, neurons, threads, [=](int64_t t, int64_t steps, int64_t n, int64_t count) {
        uint8_t* to = bytes + t / 8 * neurons + n;
        std::fill_n(to, count, uint8_t{0});
        for (int64_t s = 0; s < steps; ++s) {
            const uint8_t* from = spikes + (t + s) * neurons + n;
            for (int64_t i = 0; i < count; ++i) to[i] |= from[i] << s;
        }
    });
}

void unpack_cpu(const uint8_t* bytes, void* spikes, DType dtype, int64_t timesteps, int64_t neurons, int threads) {
    if (dtype == DType::float32)
        return unpack_as<uint32_t>(bytes, static_cast<uint32_t*>(spikes), 0x3f800000u, timesteps, neurons, threads);
    const uint16_t one = dtype == DType::float16 ? 0x3c00u : 0x3f80u;
    unpack_as<uint16_t>(bytes, static_cast<uint16_t*>(spikes), one, timesteps, neurons, threads);
}

int64_t count_cpu(const uint8_t* bytes, int64_t count) {
    int64_t ones = 0;
    for (int64_t i = 0; i < count; ++i) {
        // Sums of two, of four and of eight bits, side by side in the byte.
        uint8_t byte = bytes[i];
        byte = byte - (byte >> 1 & 0x55);
        byte = (byte & 0x33) + (byte >> 2 & 0x33);
        ones += (byte + (byte >> 4)) & 0x0f;
    }
    return ones;
}

}  // namespace snn
