#include "vector_tile.h"

#include <cmath>
#include <cstring>

#include "../core/signgd.h"
#include "../core/vector.h"
#include "unrolled.h"

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

// The largest x that is kept, -infinity if none is. Floating-point numbers are in the order of these integers, whose
// maximum the vectoriser finds at once. A NaN makes every target one, whatever the maximum.
float max_of_kept(int64_t length, const float* __restrict x, const float* __restrict keep) {
    const auto key = [](float value) SNN_INLINE_LAMBDA {
        int32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return bits ^ (bits >> 31 & 0x7fffffff);
    };
    int32_t largest = key(-INFINITY);
    for (int64_t d = 0; d < length; ++d) {
        const int32_t candidate = key(keep[d] == 0.f ? -INFINITY : x[d]);
        largest = largest > candidate ? largest : candidate;
    }
    const int32_t bits = largest ^ (largest >> 31 & 0x7fffffff);
    float max;
    std::memcpy(&max, &bits, sizeof max);
    return max;
}

// A vector's decoded inputs after several steps, which become its targets. Every statistic is taken of all steps before
// the next: they are chains of dependent operations, and the processor works on those of several steps at a time.
struct Rows {
    float* data;
    int64_t length;
    int count;

    float* operator[](int s) const { return data + s * length; }
};

void softmax(const Rows& rows, const float* __restrict a, const float*, float) {
    float max[kStepsPerByte], factor[kStepsPerByte];
    for (int s = 0; s < rows.count; ++s) max[s] = max_of_kept(rows.length, rows[s], a);
    for (int s = 0; s < rows.count; ++s) {
        float* __restrict x = rows[s];
        for (int64_t d = 0; d < rows.length; ++d) x[d] = softmax_weight(x[d], max[s], a[d]);
    }
    for (int s = 0; s < rows.count; ++s) {
        const float* __restrict x = rows[s];
        factor[s] = softmax_factor(sum(rows.length, [=](int64_t d) SNN_INLINE_LAMBDA { return x[d]; }));
    }
    for (int s = 0; s < rows.count; ++s) {
        float* __restrict x = rows[s];
        for (int64_t d = 0; d < rows.length; ++d) x[d] *= factor[s];
    }
}

template <bool Centred>
void norm(const Rows& rows, const float* __restrict a, const float* __restrict b, float eps) {
    const auto length = static_cast<float>(rows.length);
    float mean[kStepsPerByte] = {}, factor[kStepsPerByte];
    for (int s = 0; Centred && s < rows.count; ++s) {
        const float* __restrict x = rows[s];
        mean[s] = sum(rows.length, [=](int64_t d) SNN_INLINE_LAMBDA { return x[d]; }) / length;
    }
    const auto centred = [](float x, float mean) SNN_INLINE_LAMBDA { return Centred ? x - mean : x; };
    for (int s = 0; s < rows.count; ++s) {
        const float* __restrict x = rows[s];
        const float m = mean[s];
        const auto square = [=](int64_t d) SNN_INLINE_LAMBDA { return centred(x[d], m) * centred(x[d], m); };
        factor[s] = norm_factor(sum(rows.length, square) / length, eps);
    }
    for (int s = 0; s < rows.count; ++s) {
        float* __restrict x = rows[s];
        for (int64_t d = 0; d < rows.length; ++d) x[d] = norm_target(centred(x[d], mean[s]), factor[s], a[d], b[d]);
    }
}

// Row s of `rows` is the decoded input after step s, later its target.
template <int Steps>
void decode(const VectorTile& tile, const float* const* currents, const float* eta, float* __restrict rows) {
    float* __restrict x_tile = tile.x;
    const float* __restrict offset = tile.offset;
    const float* __restrict current[Steps];
    for (int s = 0; s < Steps; ++s) current[s] = currents[s];
#pragma GCC ivdep
    for (int64_t d = 0; d < tile.length; ++d) {
        float x = x_tile[d];
        unrolled<Steps>([&](auto s) SNN_INLINE_LAMBDA {
            rows[s * tile.length + d] = x = decoded(x, eta[s], current[s][d], offset[d]);
        });
        x_tile[d] = x;
    }
}

// Spikes of the steps from the `bit`th on are added to those of the steps before it. They are collected as words: bytes
// would make the vectoriser work on four times as many neurons at once.
template <int Steps>
void fire(const VectorTile& tile, const float* eta, const float* __restrict targets, int bit) {
    float* __restrict v_tile = tile.v;
    const float* __restrict scale = tile.scale;
    uint32_t* __restrict fired_tile = tile.fired;
#pragma GCC ivdep
    for (int64_t d = 0; d < tile.length; ++d) {
        float v = v_tile[d];
        uint32_t fired = bit ? fired_tile[d] : 0u;
        unrolled<Steps>([&](auto s) SNN_INLINE_LAMBDA {
            const bool spike = chase(v, targets[s * tile.length + d], eta[s], scale[d]);
            fired |= spike ? 1u << (bit + s) : 0u;
        });
        v_tile[d] = v;
        fired_tile[d] = fired;
    }
}

using SetTargets = void (*)(const Rows& rows, const float* a, const float* b, float eps);

template <SetTargets set_targets, int Steps>
void advance_by(const VectorTile& tile, const float* const* currents, const float* eta, int bit) {
    decode<Steps>(tile, currents, eta, tile.rows);
    set_targets({tile.rows, tile.length, Steps}, tile.a, tile.b, tile.eps);
    fire<Steps>(tile, eta, tile.rows, bit);
}

template <SetTargets set_targets>
void advance(const VectorTile& tile, const float* const* currents, const float* eta, int steps, uint8_t* bytes) {
    if (steps == kStepsPerByte) {
        advance_by<set_targets, kStepsPerByte>(tile, currents, eta, 0);
    } else {
        for (int s = 0; s < steps; ++s) advance_by<set_targets, 1>(tile, currents + s, eta + s, s);
    }
    for (int64_t d = 0; d < tile.length; ++d) bytes[d] = static_cast<uint8_t>(tile.fired[d]);
}

}  // namespace

const VectorKernel vector_kernels[] = {advance<softmax>, advance<norm<true>>, advance<norm<false>>};

}  // namespace snn::SNN_ISA
