#pragma once
/// How fast the library multiplies the model's own matrices: what `bench` holds an update against.

#include "comm/parallel_grid.hpp"
#include "model/config.hpp"

#include <cstdint>

namespace rf::app {

/// FLOP/s of this rank while all ranks do the same; `tokens`: of a lane. Collective.
/// On the CPU the products of one layer, [T, C] x [3C, C]ᵀ, [T, C] x [C, C]ᵀ, [T, C] x [F, C]ᵀ and [T, F] x [C, F]ᵀ, and their gradients by
/// both operands (this rank's part of each where tensor ranks split them): every one a call of oneDNN on whole matrices, which
/// spreads it over all threads of the rank itself; the sum of FLOPs over the sum of median times. On a GPU [T, C] x [F, C]ᵀ by `gemm`.
double product_rate(const ModelConfig& model, ParallelGrid& grid, Device device, Dtype dtype, std::int64_t tokens);

}  // namespace rf::app
