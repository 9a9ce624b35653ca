// Whether the kernels can run here.
#pragma once

#include <string>

namespace snn {

// Why a kernel that is built like all others cannot run on the current device; empty if it can.
std::string cuda_refusal();

}  // namespace snn
