#include "parallel_tile.h"

#include "../core/parallel.h"
#include "parallel.h"

namespace snn::SNN_ISA {

void count_tile(const float* const* current, int64_t timesteps, const float* threshold, const float* shift, int count,
                uint8_t* bytes, int64_t stride) {
    float level[kCountTile] = {};
    // Four steps side by side, in their order: one at a time, the levels would be read and written as often as the
    // currents.
    int64_t from = 0;
    for (; from + 4 <= timesteps; from += 4) {
        const float *a = current[from], *b = current[from + 1], *c = current[from + 2], *d = current[from + 3];
        for (int i = 0; i < count; ++i) level[i] = level[i] + a[i] + b[i] + c[i] + d[i];
    }
    for (; from < timesteps; ++from)
        for (int i = 0; i < count; ++i) level[i] += current[from][i];
    int32_t spikes[kCountTile];
    const auto steps = static_cast<float>(timesteps);
    for (int i = 0; i < count; ++i)
        spikes[i] = spike_count(spike_level(level[i], threshold[i], shift[i], steps), steps);
    for (int32_t t = 0; t < timesteps; t += 8, bytes += stride)
        for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(leading_spikes(spikes[i], t));
}

void mix_tile(const float* const* current, int64_t timesteps, const float* weight, const float* threshold, int count,
              uint8_t* bytes, int64_t stride) {
    for (int64_t t = 0; t < timesteps; t += 8, bytes += stride) {
        uint32_t spikes[kMixTile] = {};
        for (int64_t s = 0; s < 8 && t + s < timesteps; ++s) {
            const float* row = weight + (t + s) * timesteps;
            float sum[kMixTile] = {};
            for (int64_t from = 0; from < timesteps; ++from)
                for (int i = 0; i < count; ++i) sum[i] = mixed(sum[i], row[from], current[from][i]);
            for (int i = 0; i < count; ++i) spikes[i] |= sum[i] >= threshold[t + s] ? 1u << s : 0u;
        }
        for (int i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(spikes[i]);
    }
}

}  // namespace snn::SNN_ISA
