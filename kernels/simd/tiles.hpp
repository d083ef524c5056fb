#pragma once
/// Products of bf16 matrices laid out in tiles of 16 x 16 pairs (1 KiB): what AMX multiplies at once and AVX512_BF16 a row at a time. Laying an operand out
/// costs a pass over it and is worth it where its elements are used often: from cache, a tile is read without strides or edges.
///
/// As table.hpp, this header is included by files compiled for single instruction sets and holds no inline function.

#include <cstdint>

namespace rf::simd {

/// Of a tile: lines (rows of A or columns of B), elements along the sum, and both together.
constexpr std::int64_t tile_lines = 16, tile_depth = 32, tile_size = tile_lines * tile_depth;

/// An operand on its way into tiles. Element (line i, depth l) is x[i ld + l], or x[l ld + i] where `turned`. Tile (I, L) of ceil(lines / 16) x ceil(depth / 32), in rows of L,
/// has lines from 16 I and depth from 32 L: of A [line][depth], of B [depth / 2][line][2]. Zeros fill what lies outside.
/// f32 is rounded to bf16 (nearest, ties to even; AVX512_BF16 takes subnormal numbers for zero).
template <class T> struct Layout {
    const T* x;
    std::int64_t ld;
    bool turned;
    std::int64_t lines, depth;
    std::uint16_t* tiles;
};

/// C = A B, or C += A B; C is f32 and row-major, whole tiles of 16 x 16 of it are written. Counts are of tiles; steps are the elements between lines of tiles.
/// An element is a sum over the depth in order, 32 at a time, so cutting a product along lines changes no bits.
struct TileProduct {
    const std::uint16_t* a;
    std::int64_t step_a;
    const std::uint16_t* b;
    std::int64_t step_b;
    float* c;
    std::int64_t ldc;
    std::int64_t rows, columns, depth;
    bool accumulate;
};

struct TileTable {
    void (*lay_a)(const Layout<std::uint16_t>& layout);
    void (*lay_b)(const Layout<std::uint16_t>& layout);
    void (*lay_a_f32)(const Layout<float>& layout);
    void (*lay_b_f32)(const Layout<float>& layout);
    void (*product)(const TileProduct& p);
    /// f32 to bf16, as a Layout does it.
    void (*narrow)(const float* x, std::uint16_t* y, std::int64_t n);
    /// y = narrow(max(x, 0)), NaN stays NaN; bit i % 8 of mask[i / 8] says whether y_i > 0 (bits past n in the last byte are 0).
    void (*narrow_relu)(const float* x, std::uint16_t* y, std::uint8_t* mask, std::int64_t n);
    /// narrow(x_i), or 0 where the mask's bit is 0.
    void (*narrow_relu_backward)(const float* x, std::uint16_t* y, const std::uint8_t* mask, std::int64_t n);
};

/// `portable_tiles` is for tests: it runs everywhere and is slow.
extern const TileTable portable_tiles, avx512_bf16_tiles, amx_tiles;

/// The functions of `cpu_bf16()`, or nullptr where that is `none` or `onednn`.
const TileTable* tiles();

}  // namespace rf::simd
