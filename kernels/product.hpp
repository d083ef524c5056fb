#pragma once
/// One matrix product on the calling thread: what tiles of `gemm` are made of.
/// Called inside an OpenMP parallel region, where oneDNN stays on its thread.

#include <cstdint>

namespace rf {

/// C [m, n] = op(A) op(B) + beta C, row-major with leading dimensions. `T` of A and B: float, double or std::uint16_t
/// (bf16 bits); C: the same, or float for bf16.
template <class T, class C>
struct Product {
    const T* a;
    std::int64_t lda;
    bool trans_a;
    const T* b;
    std::int64_t ldb;
    bool trans_b;
    C* c;
    std::int64_t ldc;
    std::int64_t m, n, k;
    bool accumulate;
};

void product(const Product<float, float>& p);
void product(const Product<double, double>& p);
void product(const Product<std::uint16_t, float>& p);
void product(const Product<std::uint16_t, std::uint16_t>& p);

}  // namespace rf
