#include "kernels/gemm_tiles.hpp"

#include "kernels/dispatch.hpp"
#include "kernels/gemm_blocks.hpp"
#include "kernels/simd/tiles.hpp"
#include "kernels/streaming.hpp"

namespace rf {

namespace {

/// In tiles, of a piece of C: the lines of one operand, which stay in the first-level cache while a sum runs over `longest_depth`, and of the other, which stay in the second.
constexpr std::int64_t strip = 2, group = 8, longest_depth = 16;

struct TiledGemm {
    const Gemm& g;
    const simd::TileTable& table;
    std::int64_t m, n, k;
    std::int64_t depth, pass;
    /// A is the own operand where it has more lines, unless C is bf16, whose rows are then finished in pieces of 32 elements, which is slow.
    bool owns_rows;
    GemmSide a, b;

    TiledGemm(const Gemm& gemm, const simd::TileTable& with)
        : g(gemm), table(with), m(g.c.shape[0]), n(g.c.shape[1]), k(g.trans_a ? g.a.shape[0] : g.a.shape[1]), depth(parts(k, simd::tile_depth)), pass(depth),
          owns_rows(g.c.dtype == Dtype::bf16 ? 4 * m >= n : m >= n), a(side(m, owns_rows)), b(side(n, !owns_rows)) {}

    static GemmSide side(std::int64_t lines, bool own) {
        return {.units = parts(lines, simd::tile_lines), .unit_lines = simd::tile_lines, .unit_bytes = simd::tile_size * size_of(Dtype::bf16), .piece = own ? strip : group};
    }

    void lay_a(Stretch units, Stretch, std::byte* to) const { table.lay_a(layout(g.a, g.trans_a ? m : k, g.trans_a, m, units, to)); }
    void lay_b(Stretch units, Stretch, std::byte* to) const { table.lay_b(layout(g.b, g.trans_b ? k : n, !g.trans_b, n, units, to)); }
    simd::Layout<std::uint16_t> layout(const ConstTensor& x, std::int64_t ld, bool turned, std::int64_t lines, Stretch units, std::byte* to) const {
        const std::int64_t first = units.first * simd::tile_lines;
        return {.x = raw<std::uint16_t>(x) + (turned ? first : first * ld), .ld = ld, .turned = turned, .lines = std::min(units.count * simd::tile_lines, lines - first), .depth = k,
                .tiles = reinterpret_cast<std::uint16_t*>(to)};
    }

    /// Summed in cache, then finished.
    void multiply(Stretch rows, const std::byte* a_tiles, Stretch columns, const std::byte* b_tiles, Stretch) const {
        alignas(64) float sums[strip * group * simd::tile_lines * simd::tile_lines];
        const std::int64_t ld = columns.count * simd::tile_lines, row = rows.first * simd::tile_lines, column = columns.first * simd::tile_lines;
        const std::int64_t row_count = std::min(rows.count * simd::tile_lines, m - row), column_count = std::min(ld, n - column);
        if (!streams()) expect(row, row_count, column, column_count);
        const std::int64_t length = parts(depth, parts(depth, longest_depth)), step = depth * simd::tile_size;
        for (std::int64_t l = 0; l < depth; l += length)
            table.product({.a = reinterpret_cast<const std::uint16_t*>(a_tiles) + l * simd::tile_size, .step_a = step, .b = reinterpret_cast<const std::uint16_t*>(b_tiles) + l * simd::tile_size,
                           .step_b = step, .c = sums, .ldc = ld, .rows = rows.count, .columns = columns.count, .depth = std::min(length, depth - l), .accumulate = l > 0});
        for (std::int64_t i = 0; i < row_count; ++i) finish(sums + i * ld, row + i, column, column_count);
    }

    bool streams() const { return g.trans_a && g.beta == 0 && g.c.dtype == Dtype::f32 && g.epilogue == Epilogue::none; }

    /// Asks for rows of C, which lie further apart than a processor looks ahead by itself.
    void expect(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) const {
        constexpr std::int64_t line = 64;
        const std::int64_t size = size_of(g.c.dtype);
        for (std::int64_t i = row; i < row + rows; ++i)
            for (std::int64_t j = 0; j < columns * size; j += line) __builtin_prefetch(static_cast<const std::byte*>(g.c.data) + (i * n + column) * size + j, 1, 2);
    }

    /// A row of sums on its way into C.
    void finish(float* x, std::int64_t row, std::int64_t column, std::int64_t columns) const {
        std::uint8_t* mask = g.mask ? static_cast<std::uint8_t*>(g.mask.data) + row * relu_mask_bytes(n) + column / 8 : nullptr;
        if (g.c.dtype == Dtype::f32) {
            float* const y = raw<float>(g.c) + row * n + column;
            if (g.beta != 0) return rows_of<float>().add(x, y, columns);
            if (streams()) return store_past_caches(x, y, columns);
            if (g.epilogue == Epilogue::relu) rows_of<float>().relu(x, mask, columns);
            if (g.epilogue == Epilogue::relu_backward) rows_of<float>().relu_backward(x, mask, columns);
            std::copy_n(x, columns, y);
            return;
        }
        std::uint16_t* const y = raw<std::uint16_t>(g.c) + row * n + column;
        switch (g.epilogue) {
            case Epilogue::none: return table.narrow(x, y, columns);
            case Epilogue::relu: return table.narrow_relu(x, y, mask, columns);
            case Epilogue::relu_backward: return table.narrow_relu_backward(x, y, mask, columns);
        }
    }
};

}  // namespace

void gemm_in_tiles(const Gemm& g, const simd::TileTable& table) { run_blocks(TiledGemm(g, table)); }

}  // namespace rf
