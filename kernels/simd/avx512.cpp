#include "kernels/simd/rows.inc"

namespace rf::simd {
constinit const Table avx512_table = make_table();
}  // namespace rf::simd
