#pragma once

#include <cmath>

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
};

// To the nearest, ties to even.
inline __half __float2half_rn(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    float absolute;
    memcpy(&absolute, &size, sizeof absolute);
    uint32_t half;
    if (size > 0x7f800000u)
        half = 0x7e00u;
    else if (absolute >= 65520.f)
        half = 0x7c00u;
    else if (absolute < 0x1p-14f)
        half = static_cast<uint32_t>(nearbyintf(absolute * 0x1p24f));
    else
        half = (size + 0xfffu + (size >> 13 & 1) - (112u << 23)) >> 13;
    return {static_cast<uint16_t>(sign | half)};
}

inline float __half2float(__half value) { return snn::SNN_ISA::float16_to_float(value.bits); }
