// Broadcast operands on the CPU.
#pragma once

#include <algorithm>

#include "../problem.h"

namespace snn {

// Values of neurons [begin, begin + count) of a broadcast operand.
inline void gather(const Operand& operand, int64_t begin, int count, float* out) {
    if (operand.period == 1) {
        std::fill_n(out, count, operand.data[0]);
        return;
    }
    int64_t within = begin % operand.inner, phase = begin / operand.inner % operand.period;
    for (int64_t done = 0; done < count;) {
        int64_t run;
        if (operand.inner == 1) {
            run = std::min(count - done, operand.period - phase);
            std::copy_n(operand.data + phase, run, out + done);
            phase += run;
        } else {
            run = std::min(count - done, operand.inner - within);
            std::fill_n(out + done, run, operand.data[phase]);
            within = 0;
            phase += 1;
        }
        done += run;
        if (phase == operand.period) phase = 0;
    }
}

}  // namespace snn
