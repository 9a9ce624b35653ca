// As much of CUDA as csrc/cuda uses, for a C++ compiler: the kernels run on the CPU, a block after the other. The
// threads of a block take turns at barriers, first to last or last to first, so that a missing barrier shows in one of
// the two. What this cannot show is what the GPU's compiler and memory do.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <vector>

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
    struct Thread {
        ucontext_t context;
        std::vector<char> stack = std::vector<char>(1 << 16);
        bool done = false;

        void start(ucontext_t* after) {
            getcontext(&context);
            context.uc_stack.ss_sp = stack.data();
            context.uc_stack.ss_size = stack.size();
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
