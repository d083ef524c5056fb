#include "kernels/simd/tiles.inc"

namespace rf::simd {
constinit const TileTable portable_tiles = make_tile_table();
}  // namespace rf::simd
