// The product with an amplitude for each neuron on AMX's tiles of bytes: see scaled_gemm_tile.h.
//
// As in spike_gemm_amx.cpp, a 32-bit number is four bytes and a spike a byte of 0 or 1. The numbers of a row change
// from row to row, so they are made for its columns alone: with 256 of these that takes a sixth of the time of their
// products.
#include "amx_tiles.h"
#include "scaled_gemm_tile.h"

namespace snn::amx {
namespace {

constexpr int kBytes = 4, kInputsPerWord = 4;
constexpr int kBlockInputs = kLine, kBlockBytes = kBytes * kTileBytes;
constexpr int kPatternBytes = 2 * kLine;  // of a block of columns: the time-packed bytes of its two halves
constexpr int kMostBlocks = 12;           // of inputs, whose spikes of 32 columns, 24 KB, stay in the L1 cache
constexpr int kMostOutputBlocks = 4;      // that share these spikes
static_assert(kTileRows == kColumns && kTileRows == kScaledOutputs);

void arrange(const uint8_t* bytes, int64_t blocks, int half, uint8_t* patterns) {
    for (int64_t block = 0; block < blocks; ++block, bytes += kLine)
        _mm512_store_si512(patterns + block * kPatternBytes + half * kLine, _mm512_loadu_si512(bytes));
}

// Bytes b of four inputs' numbers side by side, for each b.
void interleave(__m512i (&number)[kInputsPerWord], uint8_t* tiles) {
    constexpr __mmask32 kHighWords = 0xaaaaaaaa;
    constexpr __mmask64 kHighBytes = 0xaaaaaaaaaaaaaaaa;
    for (int i = 0; i < 2; ++i) {
        const __m512i low = number[i], high = number[i + 2];
        number[i] = _mm512_mask_blend_epi16(kHighWords, low, _mm512_slli_epi32(high, 16));
        number[i + 2] = _mm512_mask_blend_epi16(kHighWords, _mm512_srli_epi32(low, 16), high);
    }
    for (int pair = 0; pair < 2; ++pair, tiles += 2 * kTileBytes) {
        const __m512i even = number[2 * pair], odd = number[2 * pair + 1];
        _mm512_store_si512(tiles, _mm512_mask_blend_epi8(kHighBytes, even, _mm512_slli_epi16(odd, 8)));
        _mm512_store_si512(tiles + kTileBytes, _mm512_mask_blend_epi8(kHighBytes, _mm512_srli_epi16(even, 8), odd));
    }
}

// tables[block][byte][input / 4][output][input % 4]
void build(const float* weight, const float* amplitude, const float* power, int64_t blocks, int32_t* tables) {
    const __m512 scale = _mm512_loadu_ps(power);
    auto* to = reinterpret_cast<uint8_t*>(tables);
    for (int64_t block = 0; block < blocks; ++block, to += kBlockBytes)
        for (int line = 0; line < kTileRows; ++line, weight += kInputsPerWord * kScaledOutputs) {
            __m512i number[kInputsPerWord];
            for (int i = 0; i < kInputsPerWord; ++i) {
                const __m512 product =
                    _mm512_mul_ps(_mm512_set1_ps(*amplitude++), _mm512_load_ps(weight + i * kScaledOutputs));
                number[i] = _mm512_cvtps_epi32(_mm512_mul_ps(product, scale));
            }
            interleave(number, to + line * kLine);
        }
}

// spikes[block of inputs][block of columns][column][input], from the halves of the two blocks of columns.
void expand(const ScaledChunk& chunk, int64_t column_block, bool two, TwoTiles* spikes) {
    const __m512i one = _mm512_set1_epi8(1);
    for (int run = 0; run < chunk.count; ++run)
        for (int64_t block = 0; block < chunk.runs[run].blocks; ++block, ++spikes)
            for (int columns = 0; columns <= two; ++columns) {
                const uint8_t* from =
                    chunk.runs[run].patterns + (column_block + columns) * chunk.pattern_stride + block * kPatternBytes;
                uint8_t* to = (*spikes)[columns];
                for (int half = 0; half < 2; ++half, from += kLine) {
                    __m512i packed = _mm512_load_si512(from);
                    for (int step = 0; step < kStepsPerByte; ++step, to += kLine) {
                        _mm512_store_si512(to, _mm512_and_si512(packed, one));
                        packed = _mm512_srli_epi16(packed, 1);
                    }
                }
            }
    written_for_tiles();
}

// Of weights in the right operand; the last byte of one has the sign.
template <bool SecondHasSign>
struct Products {
    template <bool Two>
    static void of_first() {
        _tile_dpbuud(0, 6, 4);
        if (Two) _tile_dpbuud(1, 7, 4);
    }
    template <bool Two>
    static void of_second() {
        if (SecondHasSign) {
            _tile_dpbusd(2, 6, 5);
            if (Two) _tile_dpbusd(3, 7, 5);
        } else {
            _tile_dpbuud(2, 6, 5);
            if (Two) _tile_dpbuud(3, 7, 5);
        }
    }
};

// sum[byte][block of columns]
template <bool Two>
void multiply_bytes(const uint8_t* weights, const TwoTiles* spikes, int64_t blocks, Sum* sum) {
    multiply<Products<false>, Two>(weights, kBlockBytes, spikes, blocks, true, sum);
    multiply<Products<true>, Two>(weights + 2 * kTileBytes, kBlockBytes, spikes, blocks, true, sum + kBytes);
}

// The sums of a block of columns and one of outputs from sum[byte][block of columns].
void finish(const ScaledChunk& chunk, const Sum* sum, int64_t column_block, int64_t output_block, float* sums) {
    const int64_t output = output_block * kScaledOutputs;
    for (int column = 0; column < kColumns; ++column) {
        float* const to = sums + output_block * chunk.sum_stride +
                          chunk.places.half[2 * column_block + column / kStepsPerByte] +
                          column % kStepsPerByte * chunk.places.step;
        __m512i total =
            join<kBytes>([&](int byte) { return _mm512_load_si512(sum[2 * byte] + column * kScaledOutputs); });
        if (!chunk.first) total = _mm512_add_epi32(total, _mm512_loadu_si512(to));
        if (chunk.unit) {
            const __m512 product = _mm512_mul_ps(_mm512_loadu_ps(chunk.unit + output), _mm512_cvtepi32_ps(total));
            total = _mm512_castps_si512(_mm512_add_ps(_mm512_loadu_ps(chunk.bias + output), product));
        }
        _mm512_storeu_si512(to, total);
    }
}

void add(const ScaledChunk& chunk, float* sums) {
    alignas(kLine) TwoTiles spikes[kMostBlocks];
    alignas(kLine) Sum sum[2 * kBytes];
    const Tiles configured;
    int64_t blocks = 0;
    for (int run = 0; run < chunk.count; ++run) blocks += chunk.runs[run].blocks;
    for (int64_t column_block = 0; column_block < chunk.column_blocks; column_block += 2) {
        const bool two = column_block + 1 < chunk.column_blocks;
        expand(chunk, column_block, two, spikes);
        for (int64_t output_block = 0; output_block < chunk.output_blocks; ++output_block) {
            const auto* weights = reinterpret_cast<const uint8_t*>(chunk.tables + output_block * chunk.table_stride);
            if (two)
                multiply_bytes<true>(weights, spikes, blocks, sum);
            else
                multiply_bytes<false>(weights, spikes, blocks, sum);
            for (int columns = 0; columns <= two; ++columns)
                finish(chunk, sum + columns, column_block + columns, output_block, sums);
        }
    }
}

}  // namespace

const ScaledGemmKernels scaled_gemm_kernels = {kBlockInputs,      kPatternBytes, kBlockBytes / 4, kMostBlocks,
                                               kMostOutputBlocks, arrange,       build,           add};

}  // namespace snn::amx
