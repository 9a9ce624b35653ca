// Fixed-point numbers whose sums are exact in 32 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "macros.h"

namespace snn::SNN_ISA {

// The largest power of two by which numbers with this bound on their sums can be multiplied: rounding adds at most half
// to each summand, and the result has to fit in 31 bits. NaN where the bound is not finite.
SNN_FN float fixed_point_power(double bound, int64_t summands) {
    if (!std::isfinite(bound)) return std::numeric_limits<float>::quiet_NaN();
    const double room = (2147483647. - static_cast<double>(summands)) / bound;
    return std::ldexp(1.f, bound > 0 ? std::clamp(std::ilogb(room), -126, 126) : 0);
}

}  // namespace snn::SNN_ISA
