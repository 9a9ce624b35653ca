// The widest instruction set whose kernels are compiled in and that this processor runs.
#pragma once

#include <cstdlib>
#include <cstring>
#if defined(SNN_AMX_KERNELS)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace snn {

enum class Isa { portable, avx2, avx512, amx };

constexpr const char* kIsaNames[] = {"portable", "avx2", "avx512", "amx"};

inline const char* name_of(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

#if defined(SNN_X86_KERNELS)
// Linux keeps the tiles' registers, 8 KB a thread, for those who ask.
inline bool amx_granted() {
#if defined(SNN_AMX_EMULATED)  // tests/amx_on_host
    return true;
#elif defined(SNN_AMX_KERNELS)
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
           syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
    return false;
#endif
}

inline bool runs_here(Isa isa) {
    switch (isa) {
        case Isa::portable: return true;
        case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        default: return runs_here(Isa::avx512) && amx_granted();
    }
}
#endif

// SNN_KERNELS_ISA=portable|avx2|avx512 lowers the choice, so that every path can be tested on one machine.
inline Isa isa_here() {
#if defined(SNN_X86_KERNELS)
    static const Isa chosen = [] {
        const char* limit = std::getenv("SNN_KERNELS_ISA");
        int isa = static_cast<int>(Isa::amx);
        for (int below = 0; limit && below < isa; ++below)
            if (!std::strcmp(limit, kIsaNames[below])) isa = below;
        __builtin_cpu_init();
        while (!runs_here(static_cast<Isa>(isa))) --isa;
        return static_cast<Isa>(isa);
    }();
    return chosen;
#else
    return Isa::portable;
#endif
}

}  // namespace snn
