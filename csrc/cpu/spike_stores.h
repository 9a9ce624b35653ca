// How a product writes its currents: into the caches, where whoever reads them next finds them, or past them where they
// are more than caches keep. A line that is stored into a cache is read from memory first, one that goes past is not.
#pragma once

#include <atomic>
#include <cstring>

#include "neuron_tile.h"
#include "spike_gemm_tile.h"

namespace snn {

// From 24 MB on the product and whoever reads its currents next are together up to a half faster so, convolutions with
// small planes aside; below 8 MB slower.
inline bool are_streamed(int64_t currents) { return currents * int64_t{sizeof(float)} >= int64_t{24} << 20; }

// Of one thread, to the end of a parallel region.
class Stores {
  public:
    explicit Stores(bool streams) : streams_(streams) {}
    // Stores past the caches are in no order with others until here.
    ~Stores() {
        if (streams_) std::atomic_thread_fence(std::memory_order_seq_cst);
    }
    Stores(const Stores&) = delete;
    Stores& operator=(const Stores&) = delete;

    // to[column][row] = from[row * from_stride + column] for 16 x 16 numbers.
    void transpose(const float* from, int64_t from_stride, float* const* to) const {
        uintptr_t places = 0;
        for (int column = 0; column < kLanes; ++column) places |= reinterpret_cast<uintptr_t>(to[column]);
        (streams_ && places % kLine == 0 ? kernels_.transpose_streaming : kernels_.transpose)(from, from_stride, to);
    }

    // to[i * to_stride + lane] = from[i * from_stride + lane] for i < count, lane < 16.
    void copy_lines(const float* from, int64_t from_stride, int64_t count, float* to, int64_t to_stride) const {
        const uintptr_t place = reinterpret_cast<uintptr_t>(to);
        if (streams_ && place % kLine == 0 && to_stride % kLanes == 0)
            return kernels_.copy_lines_streaming(from, from_stride, count, to, to_stride);
        for (int64_t i = 0; i < count; ++i)
            std::memcpy(to + i * to_stride, from + i * from_stride, kLanes * sizeof(float));
    }

  private:
    static constexpr uintptr_t kLine = kLanes * sizeof(float);

    const SpikeGemmKernels& kernels_ = *tile_kernels_here().spike_gemm;
    const bool streams_;
};

}  // namespace snn
