#include "packing.h"

#include <algorithm>

#include "team.h"
#include "unrolled.h"

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

// A word is 0 where none of `bits` is set: the sign of a float does not count.
template <class Word>
void pack_as(const void* spikes, Word bits, uint8_t* bytes, int64_t timesteps, int64_t neurons, int threads) {
    for_each_run(timesteps, neurons, threads, [=](int64_t t, int64_t steps, int64_t n, int64_t count) {
        const Word* from = static_cast<const Word*>(spikes) + t * neurons + n;
        uint8_t* to = bytes + t / 8 * neurons + n;
        const auto spike = [=](int64_t s, int64_t i) { return static_cast<Word>((from[s * neurons + i] & bits) != 0); };
        if (steps == 8) {
            for (int64_t i = 0; i < count; ++i) {
                Word byte = 0;
                SNN_ISA::unrolled<8>([&](auto s) SNN_INLINE_LAMBDA { byte |= static_cast<Word>(spike(s, i) << s); });
                to[i] = static_cast<uint8_t>(byte);
            }
            return;
        }
        std::fill_n(to, count, uint8_t{0});
        for (int64_t s = 0; s < steps; ++s)
            for (int64_t i = 0; i < count; ++i) to[i] |= static_cast<uint8_t>(spike(s, i) << s);
    });
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

void pack_cpu(const void* spikes, int64_t element, uint8_t* bytes, int64_t timesteps, int64_t neurons, int threads) {
    if (element == 4) return pack_as<uint32_t>(spikes, 0x7fffffffu, bytes, timesteps, neurons, threads);
    if (element == 2) return pack_as<uint16_t>(spikes, 0x7fffu, bytes, timesteps, neurons, threads);
    pack_as<uint8_t>(spikes, 0xffu, bytes, timesteps, neurons, threads);
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
