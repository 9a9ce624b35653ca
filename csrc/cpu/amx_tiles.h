// AMX's tiles, and the loop that multiplies two of them with two others.
#pragma once

#pragma GCC diagnostic ignored "-Wuninitialized"  // gcc 12's own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cstdint>

namespace snn::amx {

constexpr int kLine = 64, kTileRows = 16, kTileBytes = kTileRows * kLine;

using Sum = int32_t[kTileRows * kTileRows];
using TwoTiles = uint8_t[2][kTileBytes];

// Eight tiles of 16 lines. A constant: gcc 12 believes that no more than 8 bytes of it are read.
constexpr struct {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t line_bytes[16] = {kLine, kLine, kLine, kLine, kLine, kLine, kLine, kLine};
    uint8_t lines[16] = {kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows, kTileRows};
} kShape;
static_assert(sizeof(kShape) == 64);

// Gives this thread the tiles until it ends.
class Tiles {
  public:
    Tiles() { _tile_loadconfig(&kShape); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// gcc 12 does not know that tiles read memory: between what is written for them and the tiles.
inline void written_for_tiles() { asm volatile("" ::: "memory"); }

// sum[2 w + s] += the product of weights w and spikes s of two tiles of either, or of the first tile of spikes alone,
// over `blocks` of them; weights lie `stride` bytes apart. Products multiply tiles 4 and 5 (weights) with 6 and 7
// (spikes).
template <class Products, bool TwoSpikes = true>
void multiply(const uint8_t* weights, int64_t stride, const TwoTiles* spikes, int64_t blocks, bool first, Sum* sum) {
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sum[0], kLine);
        _tile_loadd(1, sum[1], kLine);
        _tile_loadd(2, sum[2], kLine);
        _tile_loadd(3, sum[3], kLine);
    }
    for (int64_t block = 0; block < blocks; ++block, weights += stride) {
        _tile_loadd(4, weights, kLine);
        _tile_loadd(6, spikes[block][0], kLine);
        if constexpr (TwoSpikes) _tile_loadd(7, spikes[block][1], kLine);
        Products::template of_first<TwoSpikes>();
        _tile_loadd(5, weights + kTileBytes, kLine);
        Products::template of_second<TwoSpikes>();
    }
    _tile_stored(0, sum[0], kLine);
    if constexpr (TwoSpikes) _tile_stored(1, sum[1], kLine);
    _tile_stored(2, sum[2], kLine);
    if constexpr (TwoSpikes) _tile_stored(3, sum[3], kLine);
}

// The sum of four bytes' products: sum_0 + 256 sum_1 + 256^2 sum_2 + 256^3 sum_3, modulo 2^32.
template <int Bytes, class Part>
__m512i join(Part part) {
    __m512i total = part(Bytes - 1);
    for (int byte = Bytes - 2; byte >= 0; --byte) total = _mm512_add_epi32(_mm512_slli_epi32(total, 8), part(byte));
    return total;
}

}  // namespace snn::amx
