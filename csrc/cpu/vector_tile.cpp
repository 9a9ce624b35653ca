#include "vector_tile.h"

#include <cmath>

#include "../core/signgd.h"
#include "../core/vector.h"

namespace snn::SNN_ISA {
namespace {

// Folds value(d) of all elements into lanes: whole rows of lanes first, which is what the vectoriser sees.
template <class Value, class Fold>
SNN_FN void fold_lanes(int64_t length, float (&lane)[kVectorLanes], Value value, Fold fold) {
    int64_t d = 0;
    for (; d + kVectorLanes <= length; d += kVectorLanes)
        for (int i = 0; i < kVectorLanes; ++i) lane[i] = fold(lane[i], value(d + i));
    for (int i = 0; d + i < length; ++i) lane[i] = fold(lane[i], value(d + i));
}

template <class Value>
SNN_FN float sum(int64_t length, Value value) {
    float lane[kVectorLanes] = {};
    fold_lanes(length, lane, value, [](float a, float b) SNN_INLINE_LAMBDA { return a + b; });
    return sum_of_lanes(lane);
}

void softmax(const VectorTile& tile) {
    float lane[kVectorLanes];
    for (float& value : lane) value = -INFINITY;
    const auto kept = [&](int64_t d) SNN_INLINE_LAMBDA { return tile.a[d] == 0.f ? -INFINITY : tile.x[d]; };
    fold_lanes(tile.length, lane, kept, [](float a, float b) SNN_INLINE_LAMBDA { return a > b ? a : b; });
    float max = lane[0];
    for (const float value : lane) max = max > value ? max : value;
    for (int64_t d = 0; d < tile.length; ++d) tile.target[d] = softmax_weight(kept(d), max, tile.a[d]);
    const float total = sum(tile.length, [&](int64_t d) SNN_INLINE_LAMBDA { return tile.target[d]; });
    for (int64_t d = 0; d < tile.length; ++d) tile.target[d] = softmax_target(tile.target[d], total);
}

template <bool Centred>
void norm(const VectorTile& tile) {
    const auto length = static_cast<float>(tile.length);
    float mean = 0.f;
    if (Centred) mean = sum(tile.length, [&](int64_t d) SNN_INLINE_LAMBDA { return tile.x[d]; }) / length;
    const auto u = [&](int64_t d) SNN_INLINE_LAMBDA { return Centred ? tile.x[d] - mean : tile.x[d]; };
    const float mean_square = sum(tile.length, [&](int64_t d) SNN_INLINE_LAMBDA { return u(d) * u(d); }) / length;
    for (int64_t d = 0; d < tile.length; ++d)
        tile.target[d] = norm_target(u(d), mean_square, tile.eps, tile.a[d], tile.b[d]);
}

template <void (*set_targets)(const VectorTile&)>
void advance(const VectorTile& tile, const float* const* currents, const float* eta, int steps, uint8_t* bytes) {
    for (int64_t d = 0; d < tile.length; ++d) bytes[d] = 0;
    for (int s = 0; s < steps; ++s) {
        const float* __restrict current = currents[s];
        float* __restrict x = tile.x;
        for (int64_t d = 0; d < tile.length; ++d) x[d] = x[d] - eta[s] * decoded_gradient(current[d], tile.offset[d]);
        set_targets(tile);
        float* __restrict v = tile.v;
        uint8_t* __restrict out = bytes;
        const float* __restrict target = tile.target;
        for (int64_t d = 0; d < tile.length; ++d) {
            const bool spike = fires(v[d], target[d]);
            const float size = eta[s] * tile.scale[d];
            v[d] = spike ? v[d] - size : v[d] + size;
            out[d] = static_cast<uint8_t>(out[d] | (spike ? 1u << s : 0u));
        }
    }
}

}  // namespace

const VectorKernel vector_kernels[] = {advance<softmax>, advance<norm<true>>, advance<norm<false>>};

}  // namespace snn::SNN_ISA
