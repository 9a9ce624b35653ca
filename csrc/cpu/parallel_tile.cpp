#include "parallel_tile.h"

#include "../core/parallel.h"
#include "parallel.h"

namespace snn::SNN_ISA {

void count_tile(const float* const* current, int64_t timesteps, const float* threshold, const float* shift, int count,
                uint8_t* bytes, int64_t stride) {
    float level[kParallelTile] = {};
    for (int64_t t = 0; t < timesteps; ++t)
        for (int i = 0; i < count; ++i) level[i] += current[t][i];
    for (int i = 0; i < count; ++i)
        level[i] = spike_level(level[i], threshold[i], shift[i], static_cast<float>(timesteps));
    for (int64_t t = 0; t < timesteps; t += 8, bytes += stride) {
        uint32_t spikes[kParallelTile] = {};
        for (int64_t s = 0; s < 8 && t + s < timesteps; ++s)
            for (int i = 0; i < count; ++i)
                spikes[i] |= fires_at(level[i], static_cast<float>(t + s + 1)) ? 1u << s : 0u;
        for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(spikes[i]);
    }
}

void mix_tile(const float* const* current, int64_t timesteps, const float* weight, const float* threshold, int count,
              uint8_t* bytes, int64_t stride) {
    for (int64_t t = 0; t < timesteps; t += 8, bytes += stride) {
        uint32_t spikes[kParallelTile] = {};
        for (int64_t s = 0; s < 8 && t + s < timesteps; ++s) {
            const float* row = weight + (t + s) * timesteps;
            float sum[kParallelTile] = {};
            for (int64_t from = 0; from < timesteps; ++from)
                for (int i = 0; i < count; ++i) sum[i] = mixed(sum[i], row[from], current[from][i]);
            for (int i = 0; i < count; ++i) spikes[i] |= sum[i] >= threshold[t + s] ? 1u << s : 0u;
        }
        for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(spikes[i]);
    }
}

}  // namespace snn::SNN_ISA
