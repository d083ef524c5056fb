#pragma once
/// `gemm` of f32 operands by products of our own (simd/panel_product.inc): rows of A, read where they lie or in strips of a few, meet panels of B's columns.

#include "kernels/gemm.hpp"

namespace rf {
namespace simd {
struct Table;
}

/// As gemm() has checked it, all in f32. The sum over k is cut by its length alone and its parts are added in order, each to what C holds, so the bits depend on neither threads nor blocks,
/// and an element has the same ones in a product of any rows and columns.
void gemm_in_panels(const Gemm& g, const simd::Table& table);

}  // namespace rf
