#pragma once

#include "cuda_runtime.h"

struct __half {
    uint16_t bits;
};

inline float __half2float(__half value) { return snn::SNN_ISA::float16_to_float(value.bits); }
