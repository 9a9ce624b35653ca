// The dense spike product on AMX's tiles of bytes: see spike_gemm_tile.h.
//
// A 32-bit weight is four bytes, and a spike is a byte of 0 or 1, so four products of bytes (AMX adds 64 of them to
// each of 16 x 16 sums in one instruction) make the same exact sums as the tables of Four Russians do: modulo 2^32, to
// which the sums belong, sum = sum_0 + 256 sum_1 + 256^2 sum_2 + 256^3 sum_3. That is 256 products a cycle, where
// permutes make 80 and fused multiply-adds 32. A weight of 8 bits is one byte, and there are 1024 products a cycle.
#include "amx_tiles.h"

#include <algorithm>
#include <cstring>

#include "spike_gemm_tile.h"

namespace snn::amx {
namespace {

constexpr int kBlockInputs = kLine;         // a line of weights: one byte of as many inputs
constexpr int kPairBytes = 2 * kTileBytes;  // tiles of weights go in pairs: two bytes, or two blocks of outputs
constexpr int kMostBlocks = 10;             // of inputs, whose spikes at two steps, 20 KB, stay in the L1 cache
constexpr int kSteps = 2;                   // at once

// How weights of so many bytes become pairs of tiles: of 4 bytes, two pairs have those of 16 outputs; of one byte, a
// pair has 32 outputs.
template <int Bytes>
struct Pairs {
    static constexpr int kCount = (Bytes + 1) / 2;
    static constexpr int kOutputs = 2 * kCount / Bytes * kTileRows;
};

// tables[kOutputs outputs][pair][block][tile of the pair][output][input]
template <int Bytes>
void build_tables(const int32_t* fixed, int64_t blocks, int64_t n, int32_t* tables) {
    using P = Pairs<Bytes>;
    uint8_t* to =
        reinterpret_cast<uint8_t*>(tables) + n / P::kOutputs * P::kCount * blocks * kPairBytes + n % kTileRows * kLine;
    for (int64_t block = 0; block < blocks; ++block, fixed += kBlockInputs)
        for (int byte = 0; byte < Bytes; ++byte) {
            const int64_t tile = byte + n % P::kOutputs / kTileRows;
            uint8_t* line = to + (tile / 2 * blocks + block) * kPairBytes + tile % 2 * kTileBytes;
            for (int k = 0; k < kBlockInputs; ++k) line[k] = static_cast<uint8_t>(fixed[k] >> (8 * byte));
        }
}

// The words are a tile: its line j has inputs 4 j .. 4 j + 3 of sixteen rows.
void build_index(const uint32_t* words, uint32_t* index) { std::memcpy(index, words, kTileBytes); }

// spikes[block][step][line] = 0 or 1 for each byte
void expand(const uint8_t* index, int64_t blocks, int first_step, TwoTiles* spikes) {
    for (int64_t block = 0; block < blocks; ++block)
        for (int line = 0; line < kTileBytes; line += kLine, index += kLine) {
            const __m512i packed = _mm512_load_si512(index);
            for (int step = 0; step < kSteps; ++step)
                _mm512_store_si512(spikes[block][step] + line,
                                   _mm512_and_si512(_mm512_srl_epi16(packed, _mm_cvtsi32_si128(first_step + step)),
                                                    _mm512_set1_epi8(1)));
        }
    written_for_tiles();
}

// Of weights in the left operand; the last byte of one has the sign.
template <bool FirstHasSign, bool SecondHasSign>
struct Products {
    template <bool Two>
    static void of_first() {
        if (FirstHasSign) {
            _tile_dpbsud(0, 4, 6);
            if (Two) _tile_dpbsud(1, 4, 7);
        } else {
            _tile_dpbuud(0, 4, 6);
            if (Two) _tile_dpbuud(1, 4, 7);
        }
    }
    template <bool Two>
    static void of_second() {
        if (SecondHasSign) {
            _tile_dpbsud(2, 5, 6);
            if (Two) _tile_dpbsud(3, 5, 7);
        } else {
            _tile_dpbuud(2, 5, 6);
            if (Two) _tile_dpbuud(3, 5, 7);
        }
    }
};

// Both steps of up to 16 outputs from sum[byte][step]: current[s][n][lane].
template <int Bytes>
void finish(const Sum* sum, const float* unit, const float* bias, __m512 row, int outputs, float* current,
            int64_t step_stride) {
    for (int s = 0; s < kSteps; ++s, current += step_stride)
        for (int n = 0; n < outputs; ++n) {
            const __m512i total =
                join<Bytes>([&](int byte) { return _mm512_load_si512(sum[byte * kSteps + s] + n * kLanes); });
            const __m512 factor = _mm512_mul_ps(_mm512_set1_ps(unit[n]), row);
            const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(total), factor);
            _mm512_storeu_ps(current + n * kLanes, _mm512_add_ps(_mm512_set1_ps(bias[n]), product));
        }
}

template <int Bytes>
void accumulate(const uint32_t* index, const int32_t* tables, const float* unit, const float* bias, const float* row,
                int64_t blocks, int outputs, float* current, int64_t step_stride) {
    using P = Pairs<Bytes>;
    alignas(kLine) TwoTiles spikes[kMostBlocks];                                 // of two steps
    alignas(kLine) Sum sums[kMostOutputs / P::kOutputs][P::kCount][2 * kSteps];  // [tile][step]
    const auto* bytes = reinterpret_cast<const uint8_t*>(index);
    const auto* weights = reinterpret_cast<const uint8_t*>(tables);
    const __m512 of_row = _mm512_loadu_ps(row);
    const Tiles configured;
    const int64_t chunks = (blocks + kMostBlocks - 1) / kMostBlocks;
    for (int step = 0; step < 8; step += kSteps)
        for (int64_t done = 0, chunk, c = 1; c <= chunks; ++c, done += chunk) {
            chunk = c * blocks / chunks - done;
            expand(bytes + done * kTileBytes, chunk, step, spikes);
            for (int n = 0; n < outputs; n += P::kOutputs) {
                const uint8_t* from = weights + (n / P::kOutputs * P::kCount * blocks + done) * kPairBytes;
                auto* const sum = sums[chunks == 1 ? 0 : n / P::kOutputs];
                if constexpr (Bytes == 1) {
                    multiply<Products<true, true>>(from, kPairBytes, spikes, chunk, done == 0, sum[0]);
                } else {
                    multiply<Products<false, false>>(from, kPairBytes, spikes, chunk, done == 0, sum[0]);
                    multiply<Products<false, true>>(from + blocks * kPairBytes, kPairBytes, spikes, chunk, done == 0,
                                                    sum[1]);
                }
                if (c < chunks) continue;
                for (int m = n; m < std::min(n + P::kOutputs, outputs); m += kTileRows)
                    finish<Bytes>(sum[0] + (m - n) / kTileRows * kSteps, unit + m, bias + m, of_row,
                                  std::min(kTileRows, outputs - m), current + step * step_stride + m * kLanes,
                                  step_stride);
            }
        }
}

}  // namespace

template <int Bytes>
constexpr DenseKernels kernels = {kBlockInputs, kTileBytes / 4, kBlockInputs / 4 * Bytes, Pairs<Bytes>::kOutputs,
                                  1280 * 1024,  build_index,    build_tables<Bytes>,      accumulate<Bytes>};

const DenseKernels dense_kernels = kernels<4>, byte_kernels = kernels<1>;

}  // namespace snn::amx
