#include "kernels/simd/tiles.inc"

namespace rf::simd {
constinit const TileTable amx_tiles = make_tile_table();
}  // namespace rf::simd
