#include "kernels/gemm_panels.hpp"

#include "kernels/dispatch.hpp"
#include "kernels/gemm_blocks.hpp"

namespace rf {

namespace {

/// Of a piece of C, and of the part of the sum for which a panel and the strips that meet it stay in cache.
constexpr std::int64_t piece_rows = 128, piece_columns = 96, longest_pass = 384;

/// Units of A are strips, of B panels.
struct PanelGemm {
    const Gemm& g;
    const simd::Table& table;
    std::int64_t m, n, depth, pass, width = table.panel_width, strip = table.strip_rows;
    bool owns_rows;
    GemmSide a, b;

    PanelGemm(const Gemm& gemm, const simd::Table& with)
        : g(gemm), table(with), m(g.c.shape[0]), n(g.c.shape[1]), depth(g.trans_a ? g.a.shape[0] : g.a.shape[1]), pass(parts(depth, parts(depth, longest_pass))), owns_rows(m >= n),
          a{.units = parts(m, strip), .unit_lines = strip, .unit_bytes = strip * size_of(Dtype::f32), .piece = piece_rows / strip, .in_place = !g.trans_a},
          b{.units = parts(n, width), .unit_lines = width, .unit_bytes = width * size_of(Dtype::f32), .piece = piece_columns / width} {}

    void lay_a(Stretch units, Stretch steps, std::byte* to) const { lay_lines(raw<float>(g.a), m, m, units, steps, strip, table.lay_strips, reinterpret_cast<float*>(to)); }
    void lay_b(Stretch units, Stretch steps, std::byte* to) const {
        auto* const panels = reinterpret_cast<float*>(to);
        if (!g.trans_b) return lay_lines(raw<float>(g.b), n, n, units, steps, width, table.lay_panels, panels);
        for (std::int64_t i = 0; i < units.count; ++i) {
            float* const panel = panels + i * steps.count * width;
            const std::int64_t first = (units.first + i) * width, there = std::min(width, n - first);
            if (there < width) std::fill_n(panel, steps.count * width, 0.0F);
            table.transpose(raw<float>(g.b) + first * depth + steps.first, depth, there, steps.count, panel, width);
        }
    }
    /// Lines that lie side by side in rows of x [steps][ld]. Zeros fill what lies behind the last of `lines`.
    static void lay_lines(const float* x, std::int64_t ld, std::int64_t lines, Stretch units, Stretch steps, std::int64_t length, decltype(simd::Table::lay_strips) lay, float* to) {
        const std::int64_t first = units.first * length, whole = std::min(units.count, (lines - first) / length), rest = std::min(units.count * length, lines - first) - whole * length;
        const float* const rows = x + steps.first * ld + first;
        lay(rows, ld, steps.count, whole, to);
        if (rest == 0) return;
        float* out = to + whole * steps.count * length;
        for (std::int64_t l = 0; l < steps.count; ++l, out += length) std::fill(std::copy_n(rows + l * ld + whole * length, rest, out), out + length, 0.0F);
    }

    void multiply(Stretch rows, const std::byte* strips, Stretch columns, const std::byte* panels, Stretch steps) const {
        const std::int64_t row = rows.first * strip, row_count = std::min(rows.count * strip, m - row), column = columns.first * width;
        const bool adds = g.beta != 0 || steps.first > 0;
        for (std::int64_t j = 0; j < columns.count; ++j) {
            const std::int64_t first = column + j * width, there = std::min(width, n - first);
            const bool whole = there == width;
            alignas(64) float beside[piece_rows * piece_columns];  // for a last panel that C has not all columns of
            float* const c = raw<float>(g.c) + row * n + first;
            table.panel_product({.a = a.in_place ? raw<float>(g.a) + row * depth + steps.first : reinterpret_cast<const float*>(strips),
                                 .lda = a.in_place ? depth : 0,
                                 .b = reinterpret_cast<const float*>(panels) + j * steps.count * width,
                                 .c = whole ? c : beside,
                                 .ldc = whole ? n : width,
                                 .m = row_count,
                                 .k = steps.count,
                                 .accumulate = whole && adds});
            for (std::int64_t i = 0; i < row_count && !whole; ++i) {
                if (adds) rows_of<float>().add(beside + i * width, c + i * n, there);
                else std::copy_n(beside + i * width, there, c + i * n);
            }
        }
        if (g.epilogue == Epilogue::none || steps.first + steps.count < depth) return;
        const std::int64_t column_count = std::min(columns.count * width, n - column);
        for (std::int64_t i = row; i < row + row_count; ++i) {
            float* const x = raw<float>(g.c) + i * n + column;
            std::uint8_t* const mask = static_cast<std::uint8_t*>(g.mask.data) + i * relu_mask_bytes(n) + column / 8;
            if (g.epilogue == Epilogue::relu) rows_of<float>().relu(x, mask, column_count);
            else rows_of<float>().relu_backward(x, mask, column_count);
        }
    }
};

}  // namespace

void gemm_in_panels(const Gemm& g, const simd::Table& table) { run_blocks(PanelGemm(g, table)); }

}  // namespace rf
