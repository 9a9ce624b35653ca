// As much of CUDA as csrc/cuda uses, for a C++ compiler: the kernels run on the CPU, a block after the other. The
// threads of a block take turns at barriers, first to last or last to first, so that a missing barrier shows in one of
// the two. What this cannot show is what the GPU's compiler and memory do.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
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

// A float16 number as integer * 2^(exponent - 10), with the exponent that it is stored with: of subnormal ones the
// lowest.
struct Half {
    uint16_t bits;
    int64_t integer;
    int exponent;

    explicit Half(uint16_t bits) : bits(bits), integer(bits & 1023), exponent((bits >> 10 & 31) - 15) {
        if (exponent == -15)
            exponent = -14;
        else
            integer += 1024;
        if (bits >> 15) integer = -integer;
    }
    bool finite() const { return exponent < 16; }
    float value() const { return snn::SNN_ISA::float16_to_float(bits); }
};

inline int64_t times_power_of_two(int64_t value, int power) {
    return power >= 0 ? value << power : power <= -63 ? 0 : value < 0 ? -(-value >> -power) : value >> -power;
}

// How tensor cores add, as MMA-Sim (Microsoft, github.com/microsoft/MMA-Sim) found out of them and verified bit for
// bit: what is added is aligned by the largest sum of the factors' exponents, and all that lies more than 24 bits
// (Turing to Ada; 25 on Hopper) below is cut off, as are the bits of the sum that a float32 does not have.
inline float fused_sum(float sum, const Half* const (&a)[8], const Half* const (&b)[8]) {
    const int of_sum = sum == 0 ? -126 : std::max(std::ilogb(sum), -126);
    int largest = of_sum;
    for (int k = 0; k < 8; ++k)
        if (a[k]->integer && b[k]->integer) largest = std::max(largest, a[k]->exponent + b[k]->exponent);
    int64_t total = times_power_of_two(static_cast<int64_t>(std::ldexp(sum, 23 - of_sum)), of_sum + 1 - largest);
    for (int k = 0; k < 8; ++k)
        total += times_power_of_two(a[k]->integer * b[k]->integer, a[k]->exponent + b[k]->exponent + 4 - largest);
    const double exact = std::ldexp(static_cast<double>(total), largest - 24);
    const float rounded = static_cast<float>(exact);
    return std::fabs(rounded) > std::fabs(exact) ? std::nextafter(rounded, 0.f) : rounded;
}

// The tensor cores' product as csrc/cuda/tensor_core.cuh describes it, eight columns after the other.
inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Operands {
        std::vector<Half> a, b;
    };
    // Of every thread, in turns, so that none overwrites what another still reads.
    static Operands given[2][1024];
    static unsigned turn[1024];
    const unsigned thread = threadIdx.x, first = thread / 32 * 32, lane = thread % 32;
    auto& here = given[turn[thread]++ % 2];
    Operands& own = here[thread];
    own.a.clear(), own.b.clear();
    for (const uint32_t pair : a)
        for (const int shift : {0, 16}) own.a.emplace_back(static_cast<uint16_t>(pair >> shift));
    for (const uint32_t pair : {b0, b1})
        for (const int shift : {0, 16}) own.b.emplace_back(static_cast<uint16_t>(pair >> shift));
    __syncthreads();
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
        for (unsigned part = 0; part < 2; ++part) {
            const Half *of_a[8], *of_b[8];
            bool finite = std::isfinite(sum[i]);
            for (unsigned k = 0; k < 8; ++k) {
                of_a[k] = &here[first + row * 4 + k / 2].a[2 * (i / 2 + part * 2) + k % 2];
                of_b[k] = &here[first + column * 4 + k / 2].b[2 * part + k % 2];
                finite = finite && of_a[k]->finite() && of_b[k]->finite();
            }
            if (finite)
                sum[i] = fused_sum(sum[i], of_a, of_b);
            else
                for (int k = 0; k < 8; ++k) sum[i] += of_a[k]->value() * of_b[k]->value();
        }
    }
}

}  // namespace cuda_on_host

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct cudaFuncAttributes {};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, void (*)()) { return cudaSuccess; }

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
