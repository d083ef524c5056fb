#pragma once
/// `gemm` of bf16 operands by tiles of our own (simd/tiles.hpp): both operands are laid out once, then blocks of C are summed from cache and finished there.

#include "kernels/gemm.hpp"

namespace rf {
namespace simd {
struct TileTable;
}

/// As gemm() has checked it, with bf16 operands and C in bf16 or f32. The sum over k is in order for every element, so the bits depend on neither threads nor blocks.
void gemm_in_tiles(const Gemm& g, const simd::TileTable& table);

}  // namespace rf
