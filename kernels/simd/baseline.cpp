#include "kernels/simd/rows.inc"

namespace rf::simd {
constinit const Table baseline_table = make_table();
}  // namespace rf::simd
