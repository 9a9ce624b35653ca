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

// The targets of a vector of `length` decoded inputs x, from its operands a and b.
void softmax(int64_t length, const float* __restrict x, const float* __restrict a, const float* __restrict, float,
             float* __restrict target) {
    float lane[kVectorLanes];
    for (float& value : lane) value = -INFINITY;
    const auto kept = [=](int64_t d) SNN_INLINE_LAMBDA { return a[d] == 0.f ? -INFINITY : x[d]; };
    fold_lanes(length, lane, kept, [](float p, float q) SNN_INLINE_LAMBDA { return p > q ? p : q; });
    float max = lane[0];
    for (const float value : lane) max = max > value ? max : value;
    for (int64_t d = 0; d < length; ++d) target[d] = softmax_weight(x[d], max, a[d]);
    const float total = sum(length, [=](int64_t d) SNN_INLINE_LAMBDA { return target[d]; });
    for (int64_t d = 0; d < length; ++d) target[d] = softmax_target(target[d], total);
}

template <bool Centred>
void norm(int64_t length, const float* __restrict x, const float* __restrict a, const float* __restrict b, float eps,
          float* __restrict target) {
    const auto count = static_cast<float>(length);
    const float mean = Centred ? sum(length, [=](int64_t d) SNN_INLINE_LAMBDA { return x[d]; }) / count : 0.f;
    const auto u = [=](int64_t d) SNN_INLINE_LAMBDA { return Centred ? x[d] - mean : x[d]; };
    const float mean_square = sum(length, [=](int64_t d) SNN_INLINE_LAMBDA { return u(d) * u(d); }) / count;
    for (int64_t d = 0; d < length; ++d) target[d] = norm_target(u(d), mean_square, eps, a[d], b[d]);
}

using SetTargets = void (*)(int64_t, const float*, const float*, const float*, float, float*);

void decode(int64_t length, float* __restrict x, const float* __restrict current, const float* __restrict offset,
            float eta) {
    for (int64_t d = 0; d < length; ++d) x[d] = x[d] - eta * decoded_gradient(current[d], offset[d]);
}

// Spikes are collected as words: bytes would make the vectoriser work on four times as many neurons at once.
void fire(int64_t length, float* __restrict v, const float* __restrict target, const float* __restrict scale, float eta,
          uint32_t bit, uint32_t* __restrict fired) {
    for (int64_t d = 0; d < length; ++d) {
        const bool spike = fires(v[d], target[d]);
        const float size = eta * scale[d];
        v[d] = spike ? v[d] - size : v[d] + size;
        fired[d] |= spike ? bit : 0u;
    }
}

template <SetTargets set_targets>
void advance(const VectorTile& tile, const float* const* currents, const float* eta, int steps, uint8_t* bytes) {
    for (int64_t d = 0; d < tile.length; ++d) tile.fired[d] = 0;
    for (int s = 0; s < steps; ++s) {
        decode(tile.length, tile.x, currents[s], tile.offset, eta[s]);
        set_targets(tile.length, tile.x, tile.a, tile.b, tile.eps, tile.target);
        fire(tile.length, tile.v, tile.target, tile.scale, eta[s], 1u << s, tile.fired);
    }
    for (int64_t d = 0; d < tile.length; ++d) bytes[d] = static_cast<uint8_t>(tile.fired[d]);
}

}  // namespace

const VectorKernel vector_kernels[] = {advance<softmax>, advance<norm<true>>, advance<norm<false>>};

}  // namespace snn::SNN_ISA
