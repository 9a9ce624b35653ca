// Reductions over the threads of a block.
#pragma once

#include "load.cuh"

namespace snn::cuda {

struct Add {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Max {
    __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

template <class Fold>
__device__ float over_block(float value, Fold fold) {
    __shared__ float part[kThreads];
    __syncthreads();  // an earlier result may still be read
    part[threadIdx.x] = value;
    for (int width = kThreads / 2; width; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) part[threadIdx.x] = fold(part[threadIdx.x], part[threadIdx.x + width]);
    }
    __syncthreads();
    return part[0];
}

}  // namespace snn::cuda
