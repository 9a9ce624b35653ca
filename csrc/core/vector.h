// Targets that are functions of a whole vector of decoded inputs: what an element's target is, once the vector's
// statistics are known, and how these are summed.
#pragma once

#include "math.h"

namespace snn::SNN_ISA {

// Sums and maxima run in sixteen lanes, element d in lane d % 16, so that every instruction set adds in one order.
constexpr int kVectorLanes = 16;

SNN_FN float sum_of_lanes(const float (&lane)[kVectorLanes]) {
    float sum[kVectorLanes];
    for (int i = 0; i < kVectorLanes; ++i) sum[i] = lane[i];
    for (int width = kVectorLanes / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
    return sum[0];
}

// exp(x - max) / sum over the elements that are kept (keep is 1 or 0); 0 where a vector keeps none. What an element is
// multiplied by is one quotient a vector.
SNN_FN float softmax_weight(float x, float max, float keep) { return keep == 0.f ? 0.f : exp_of_negative(x - max); }
SNN_FN float softmax_factor(float sum) { return sum == 0.f ? 0.f : 1.f / sum; }

// u / sqrt(mean(u^2) + eps) weight + bias, with u = x - mean in layer_norm and u = x in rms_norm.
SNN_FN float norm_factor(float mean_square, float eps) { return 1.f / sqrtf(mean_square + eps); }
SNN_FN float norm_target(float u, float factor, float weight, float bias) { return u * factor * weight + bias; }

}  // namespace snn::SNN_ISA
