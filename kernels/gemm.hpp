#pragma once

#include "core/stream.hpp"

namespace rf {

/// C = op(A) op(B) + beta C, row-major, op(X) = X or Xᵀ. Sums in f32 (f64 for f64 operands).
/// A and B share one dtype; C has the same dtype or its accumulator type (bf16 operands into an f32 gradient).
/// Deterministic: the bits depend on the shapes and the processor, not on the number of threads.
struct Gemm {
    ConstTensor a;         ///< [m, k], or [k, m] when trans_a
    bool trans_a = false;
    ConstTensor b;         ///< [k, n], or [n, k] when trans_b
    bool trans_b = false;
    Tensor c;              ///< [m, n]
    double beta = 0;       ///< 0 (overwrite, whatever C held) or 1 (accumulate)
};
/// Operands of more than two axes are seen as matrices: A and C keep their first axis (or their last one, where a
/// transpose asks for it) as rows and fold the rest; see `as_matrix`.
void gemm(Stream& stream, const Gemm& args);

/// The same memory as a matrix of `rows` rows.
Tensor as_matrix(const Tensor& t, std::int64_t rows);
ConstTensor as_matrix(const ConstTensor& t, std::int64_t rows);

}  // namespace rf
