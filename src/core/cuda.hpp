#pragma once
/// The CUDA runtime for host code of CUDA builds: calls that fail throw with the runtime's own words.

#include "core/check.hpp"

#include <cuda_runtime_api.h>

namespace rf {

/// `what`: the call or the kernel, for the message.
inline void check(cudaError_t code, const char* what) {
    if (code == cudaSuccess) return;
    fail(what, ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")");
}

}  // namespace rf
