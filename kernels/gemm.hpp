#pragma once

#include "core/stream.hpp"

namespace rf {

/// What happens to the product on its way into C.
enum class Epilogue {
    none,
    relu,           ///< C = max(C, 0), and `mask` says where C > 0
    relu_backward,  ///< C = C where `mask` says so, else 0
};

/// C = epilogue(op(A) op(B) + beta C), row-major, op(X) = X or Xᵀ. Sums in f32 (f64 for f64 operands).
/// A and B share one dtype; C has the same dtype or its accumulator type (bf16 operands into an f32 gradient).
/// Deterministic: the bits depend on the shapes and the processor, not on the number of threads.
struct Gemm {
    ConstTensor a;         ///< [m, k], or [k, m] when trans_a
    bool trans_a = false;
    ConstTensor b;         ///< [k, n], or [n, k] when trans_b
    bool trans_b = false;
    Tensor c;              ///< [m, n]
    double beta = 0;       ///< 0 (overwrite, whatever C held) or 1 (accumulate; no epilogue then)
    Epilogue epilogue = Epilogue::none;
    Tensor mask;           ///< [m, relu_mask_bytes(n)] u8, bit j % 8 of byte j / 8 of a row: column j; written or read by an epilogue
};
/// Bytes of a row of the mask: whole 128-bit words, as cuBLASLt's RELU_AUX asks for.
constexpr std::int64_t relu_mask_bytes(std::int64_t n) { return (n + 127) / 128 * 16; }
/// Operands of more than two axes are seen as matrices: A and C keep their first axis (or their last one, where a
/// transpose asks for it) as rows and fold the rest; see `as_matrix`.
void gemm(Stream& stream, const Gemm& args);

namespace cuda {
void gemm(Stream& stream, const Gemm& args);
}  // namespace cuda

/// The same memory as a matrix of `rows` rows.
Tensor as_matrix(const Tensor& t, std::int64_t rows);
ConstTensor as_matrix(const ConstTensor& t, std::int64_t rows);

}  // namespace rf
