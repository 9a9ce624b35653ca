// The widest instruction set whose kernels are compiled in and that this processor runs.
#pragma once

#include <cstdlib>
#include <cstring>

namespace snn {

enum class Isa { portable, avx2, avx512 };

inline const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "portable"; }

// SNN_KERNELS_ISA=portable|avx2 lowers the choice, so that every path can be tested on one machine.
inline Isa isa_here() {
#if defined(SNN_X86_KERNELS)
    static const Isa chosen = [] {
        const char* limit = std::getenv("SNN_KERNELS_ISA");
        const bool below_avx2 = limit && !std::strcmp(limit, "portable");
        const bool below_avx512 = below_avx2 || (limit && !std::strcmp(limit, "avx2"));
        __builtin_cpu_init();
        if (!below_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
            return Isa::avx512;
        return !below_avx2 && __builtin_cpu_supports("avx2") ? Isa::avx2 : Isa::portable;
    }();
    return chosen;
#else
    return Isa::portable;
#endif
}

}  // namespace snn
