// As much of CUDA as csrc/cuda uses, for a C++ compiler: the kernels run on the CPU, a block after the other. The
// threads of a block take turns at barriers, first to last or last to first, so that a missing barrier shows in one of
// the two. What this cannot show is what the GPU's compiler and memory do.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "../../csrc/core/half.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other

struct dim3 {
    unsigned x;
    dim3(unsigned x = 1) : x(x) {}  // NOLINT: implicit, as in CUDA
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

// Bytes of y (4 to 7) and x (0 to 3), chosen by the digits of `selection`.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selection) {
    const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
    unsigned chosen = 0;
    for (int i = 0; i < 4; ++i) chosen |= static_cast<unsigned>(both >> (selection >> 4 * i & 7) * 8 & 255) << 8 * i;
    return chosen;
}

inline int __ffs(int word) { return __builtin_ffs(word); }

inline dim3 blockIdx, threadIdx;

template <class T>
T __ldg(const T* address) {
    return *address;
}

template <class T>
T __ldcs(const T* address) {
    return *address;
}

namespace cuda_on_host {

inline bool last_thread_first = false;

class Block {
  public:
    Block(unsigned threads, std::function<void()> body) : body_(std::move(body)), threads_(threads) {}

    void run() {
        running = this;
        for (Thread& thread : threads_) thread.start(&scheduler_);
        for (size_t done = 0; done < threads_.size();) {
            done = 0;
            for (size_t i = 0; i < threads_.size(); ++i) {
                current_ = last_thread_first ? threads_.size() - 1 - i : i;
                threadIdx.x = static_cast<unsigned>(current_);
                swapcontext(&scheduler_, &threads_[current_].context);
                done += threads_[current_].done;
            }
            if (done && done < threads_.size())
                throw std::logic_error("a barrier that not all threads of a block reach");
        }
    }

    void wait() { swapcontext(&threads_[current_].context, &scheduler_); }

    static inline Block* running = nullptr;

  private:
    static constexpr size_t kStack = 1 << 18;

    struct Thread {
        ucontext_t context;
        std::unique_ptr<char[]> stack{new char[kStack]};
        bool done = false;

        void start(ucontext_t* after) {
            getcontext(&context);
            context.uc_stack.ss_sp = stack.get();
            context.uc_stack.ss_size = kStack;
            context.uc_link = after;
            done = false;
            makecontext(&context, &Block::run_thread, 0);
        }
    };

    static void run_thread() {
        running->body_();
        running->threads_[running->current_].done = true;
    }

    std::function<void()> body_;
    std::vector<Thread> threads_;
    ucontext_t scheduler_;
    size_t current_ = 0;
};

}  // namespace cuda_on_host

inline void __syncthreads() { cuda_on_host::Block::running->wait(); }

namespace cuda_on_host {

// The tensor cores' product as csrc/cuda/tensor_core.cuh describes it. Added in float64 and rounded once: how a GPU
// rounds within an instruction is not said anywhere.
inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Operands {
        uint32_t a[4], b[2];
    };
    // Of every thread, in turns, so that none overwrites what another still reads.
    static Operands given[2][1024];
    static unsigned turn[1024];
    const unsigned thread = threadIdx.x, first = thread / 32 * 32, lane = thread % 32;
    auto& here = given[turn[thread]++ % 2];
    here[thread] = {{a[0], a[1], a[2], a[3]}, {b0, b1}};
    __syncthreads();
    const auto half = [](uint32_t pair, int k) {
        return static_cast<double>(snn::SNN_ISA::float16_to_float(static_cast<uint16_t>(pair >> 16 * (k % 2))));
    };
    for (unsigned i = 0; i < 4; ++i) {
        double total = sum[i];
        const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const Operands& of_row = here[first + row * 4 + k % 8 / 2];
            const Operands& of_column = here[first + column * 4 + k % 8 / 2];
            total += half(of_row.a[i / 2 + k / 8 * 2], k) * half(of_column.b[k / 8], k);
        }
        sum[i] = static_cast<float>(total);
    }
}

}  // namespace cuda_on_host

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

template <class... Parameter, class... Argument>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* configuration, void (*kernel)(Parameter...),
                               const Argument&... arguments) {
    cuda_on_host::Block block(configuration->blockDim.x, [&] { kernel(arguments...); });
    for (blockIdx.x = 0; blockIdx.x < configuration->gridDim.x; ++blockIdx.x) block.run();
    return cudaSuccess;
}
