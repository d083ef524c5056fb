#include "kernels/simd/tiles.inc"

namespace rf::simd {
constinit const TileTable avx512_bf16_tiles = make_tile_table();
}  // namespace rf::simd
