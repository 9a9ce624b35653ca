// AMX's tiles of 16 lines of 64 bytes in plain C++, for processors without them and for the address sanitizer, which
// does not see what instructions written by hand read and write. Compiled in place of the compiler's header, with
// SNN_AMX_EMULATED.
#pragma once

#include_next <immintrin.h>

#include <cassert>
#include <cstdint>
#include <cstring>

namespace emulated {

struct Tile {
    uint8_t line[16][64];
};

inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline void configure(const void* shape) {
    uint8_t bytes[64];
    std::memcpy(bytes, shape, sizeof(bytes));
    assert(bytes[0] == 1 && bytes[1] == 0);
    for (int tile = 0; tile < 8; ++tile) assert(bytes[16 + 2 * tile] == 64 && bytes[48 + tile] == 16);
    configured = true;
}

inline void release() { configured = false; }

inline Tile& at(int tile) {
    assert(configured);
    return tiles[tile];
}

inline void zero(int tile) { at(tile) = Tile{}; }

inline void load(int tile, const void* from, long stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(at(tile).line[i], static_cast<const uint8_t*>(from) + i * stride, 64);
}

inline void store(int tile, void* to, long stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(static_cast<uint8_t*>(to) + i * stride, at(tile).line[i], 64);
}

// sum[m][n] += a[m][4 k + i] * b[k][4 n + i] for k < 16, i < 4, bytes of these types.
template <class A, class B>
__attribute__((optimize("O3"), no_sanitize("address"))) void multiply(int sum, int a, int b) {
    uint32_t sums[16][16];
    std::memcpy(sums, at(sum).line, sizeof(sums));
    const Tile left = at(a), right = at(b);
    for (int m = 0; m < 16; ++m)
        for (int k = 0; k < 64; ++k)
            for (int n = 0; n < 16; ++n)
                sums[m][n] += static_cast<A>(left.line[m][k]) * static_cast<B>(right.line[k / 4][4 * n + k % 4]);
    std::memcpy(at(sum).line, sums, sizeof(sums));
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbuud
#undef _tile_dpbsud
#undef _tile_dpbusd
#define _tile_loadconfig emulated::configure
#define _tile_release emulated::release
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbuud emulated::multiply<uint8_t, uint8_t>
#define _tile_dpbsud emulated::multiply<int8_t, uint8_t>
#define _tile_dpbusd emulated::multiply<uint8_t, int8_t>
