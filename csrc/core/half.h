// float16 and bfloat16 to float32 in integer operations: exact, and vectorised without instruction-set extensions.
#pragma once

#include "math.h"

namespace snn::SNN_ISA {

SNN_FN float bfloat16_to_float(uint16_t bits) { return from_bits(static_cast<uint32_t>(bits) << 16); }

// The exponent is moved by 112 with one exact multiplication, which also normalises the denormals.
SNN_FN float float16_to_float(uint16_t bits) {
    const uint32_t size = bits & 0x7fffu;
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const float finite = from_bits(size << 13) * from_bits(0x77800000u);
    const uint32_t special = 0x7f800000u | (size << 13);
    return from_bits((size >= 0x7c00u ? special : to_bits(finite)) | sign);
}

}  // namespace snn::SNN_ISA
