#include "kernels/simd/rows.inc"

namespace rf::simd {
const Table avx512_table = make_table();
}  // namespace rf::simd
