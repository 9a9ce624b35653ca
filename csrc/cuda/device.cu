#include "device.h"

#include <cuda_runtime.h>

namespace snn {
namespace {

__global__ void nothing() {}

}  // namespace

std::string cuda_refusal() {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, nothing);
    cudaGetLastError();  // or the next launch would report it
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace snn
