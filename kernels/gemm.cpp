#include "kernels/gemm.hpp"

#include "core/cpu.hpp"
#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm_panels.hpp"
#include "kernels/gemm_tiles.hpp"
#include "kernels/product.hpp"
#include "kernels/simd/tiles.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rf {

Tensor as_matrix(const Tensor& t, std::int64_t rows) { return t.reshape({rows, rows ? t.shape.count() / rows : 0}); }
ConstTensor as_matrix(const ConstTensor& t, std::int64_t rows) { return t.reshape({rows, rows ? t.shape.count() / rows : 0}); }

namespace {

/// The epilogue on one tile, while it is in cache. Tiles begin at multiples of 16 columns, so no two share a mask byte.
template <class C>
void finish(const Gemm& g, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
    if (g.epilogue == Epilogue::none) return;
    const std::int64_t n = g.c.shape[1], mask_row = relu_mask_bytes(n);
    for (std::int64_t i = row; i < row + rows; ++i) {
        C* c = raw<C>(g.c) + i * n + column;
        std::uint8_t* mask = static_cast<std::uint8_t*>(g.mask.data) + i * mask_row + column / 8;
        if (g.epilogue == Epilogue::relu) rows_of<C>().relu(c, mask, columns);
        else rows_of<C>().relu_backward(c, mask, columns);
    }
}

/// Length of `parts` even parts of an axis of n, a multiple of 16.
std::int64_t part_length(std::int64_t n, std::int64_t parts) { return (n / parts + (n % parts != 0) + 15) / 16 * 16; }

/// How a result of m x n is cut that is left to oneDNN, as a function of the shape alone. Below AVX-512 oneDNN's sgemm packs its operands where
/// 1 / rows + 1 / columns is below 0.0038, and then runs at full speed whatever their layout: so tiles are of about 768 x 768, their number a
/// multiple of four, or two of them where four would be too small to be packed. Results too small for that are cut into tiles of about
/// 512 x 768, at least four, down to 96 rows or columns.
struct Tiles {
    std::int64_t rows = 0, columns = 0;  ///< of a tile
    std::int64_t down = 0, across = 0;   ///< how many

    static bool are_packed(std::int64_t rows, std::int64_t columns) { return 1 / static_cast<double>(rows) + 1 / static_cast<double>(columns) < 0.0038; }
    Tiles(std::int64_t m, std::int64_t n) {
        constexpr std::int64_t area = 768 * 768;
        const std::int64_t fours = std::max<std::int64_t>(1, (m * n + 2 * area) / (4 * area));
        if (cut_packed(m, n, 4 * fours) || cut_packed(m, n, 2)) return;
        constexpr std::int64_t least = 4, smallest = 96;
        const auto parts_of = [](std::int64_t length, std::int64_t wanted) { return std::max<std::int64_t>(1, (length + wanted / 2) / wanted); };
        rows = part_length(m, parts_of(m, 512)), columns = part_length(n, parts_of(n, 768));
        for (count(m, n); down * across < least && std::max(rows, columns) > smallest; count(m, n)) {
            if (rows >= columns) rows = part_length(m, parts_of(m, rows / 2));
            else columns = part_length(n, parts_of(n, columns / 2));
        }
    }

private:
    /// Cuts into `number` tiles as square as can be, if these are packed.
    bool cut_packed(std::int64_t m, std::int64_t n, std::int64_t number) {
        double best = std::numeric_limits<double>::infinity();
        for (std::int64_t d = 1; d <= number; ++d) {
            if (number % d != 0) continue;
            const std::int64_t r = part_length(m, d), c = part_length(n, number / d);
            const double share = 1 / static_cast<double>(std::min(r, m)) + 1 / static_cast<double>(std::min(c, n));
            if (are_packed(std::min(r, m), std::min(c, n)) && share < best) best = share, rows = r, columns = c;
        }
        count(m, n);
        return std::isfinite(best);
    }
    void count(std::int64_t m, std::int64_t n) {
        if (rows > 0) down = (m + rows - 1) / rows, across = (n + columns - 1) / columns;
    }
};

/// f32 by products of our own, which are the faster ones; not for so few columns that most of a panel is zeros.
bool goes_in_panels(std::int64_t m, std::int64_t n) {
    const simd::Table& table = simd::table();
    return cpu_isa() != Isa::baseline && n >= table.panel_width && m >= table.strip_rows;
}

/// The grid of output tiles depends on the shape only and each tile is one thread's product over all of k, so the bits
/// do not depend on the number of threads.
template <class T, class C>
void tiled(const Gemm& g, std::int64_t m, std::int64_t n, std::int64_t k) {
    const Tiles tiles(m, n);
    const std::int64_t lda = g.trans_a ? m : k, ldb = g.trans_b ? k : n;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < tiles.down * tiles.across; ++i) {
        const std::int64_t row = i / tiles.across * tiles.rows, column = i % tiles.across * tiles.columns;
        const std::int64_t rows = std::min(tiles.rows, m - row), columns = std::min(tiles.columns, n - column);
        product(Product<T, C>{.a = raw<T>(g.a) + (g.trans_a ? row : row * lda),
                              .lda = lda,
                              .trans_a = g.trans_a,
                              .b = raw<T>(g.b) + (g.trans_b ? column * ldb : column),
                              .ldb = ldb,
                              .trans_b = g.trans_b,
                              .c = raw<C>(g.c) + row * n + column,
                              .ldc = n,
                              .m = rows,
                              .n = columns,
                              .k = k,
                              .accumulate = g.beta != 0});
        finish<C>(g, row, rows, column, columns);
    }
}

}  // namespace

void gemm(Stream& stream, const Gemm& g) {
    RF_REQUIRE(g.a.shape.rank == 2 && g.b.shape.rank == 2 && g.c.shape.rank == 2, "gemm works on matrices (see as_matrix)");
    const std::int64_t m = g.c.shape[0], n = g.c.shape[1], k = g.trans_a ? g.a.shape[0] : g.a.shape[1];
    RF_REQUIRE((g.a.shape == (g.trans_a ? Shape{k, m} : Shape{m, k})) && (g.b.shape == (g.trans_b ? Shape{n, k} : Shape{k, n})), "gemm of ",
               g.a.shape, g.trans_a ? "ᵀ" : "", " and ", g.b.shape, g.trans_b ? "ᵀ" : "", " into ", g.c.shape);
    RF_REQUIRE(g.beta == 0 || g.beta == 1, "beta is 0 or 1");
    // Checked here: an error must not be thrown inside the parallel region below.
    RF_REQUIRE(g.beta == 0 || g.c.dtype != Dtype::bf16, "bf16 results are not accumulated into");
    RF_REQUIRE(g.a.dtype == g.b.dtype, "gemm operands of ", name_of(g.a.dtype), " and ", name_of(g.b.dtype));
    RF_REQUIRE(g.epilogue == Epilogue::none || (g.beta == 0 && (g.mask.shape == Shape{m, relu_mask_bytes(n)}) && g.mask.dtype == Dtype::u8),
               "an epilogue needs a mask [m, ", relu_mask_bytes(n), "] u8 and beta 0");
    if (m == 0 || n == 0) return;
    if (k == 0) {  // a sum of nothing, which the libraries refuse
        if (g.beta == 0) fill_zero(stream, g.c);
        if (g.epilogue == Epilogue::relu) fill_zero(stream, g.mask);
        return;
    }
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::gemm(stream, g);
    const OpScope scope(stream, {.name = g.trans_a ? "gemm TN" : g.trans_b ? "gemm NT" : "gemm NN",
                                 .shape = {m, n, k},
                                 .flops = 2 * static_cast<double>(m * n) * static_cast<double>(k),
                                 .bytes = bytes_of(g.a, g.b, g.c) + (g.beta != 0 ? bytes_of(g.c) : 0)});
    if (g.a.dtype == Dtype::f32 && g.c.dtype == Dtype::f32) return goes_in_panels(m, n) ? gemm_in_panels(g, simd::table()) : tiled<float, float>(g, m, n, k);
    if (g.a.dtype == Dtype::f64 && g.c.dtype == Dtype::f64) return tiled<double, double>(g, m, n, k);
    if (const simd::TileTable* tiles = simd::tiles(); tiles && g.a.dtype == Dtype::bf16 && (g.c.dtype == Dtype::f32 || g.c.dtype == Dtype::bf16))
        return gemm_in_tiles(g, *tiles);
    if (g.a.dtype == Dtype::bf16 && g.c.dtype == Dtype::f32) return tiled<std::uint16_t, float>(g, m, n, k);
    if (g.a.dtype == Dtype::bf16 && g.c.dtype == Dtype::bf16) return tiled<std::uint16_t, std::uint16_t>(g, m, n, k);
    fail("no gemm of ", name_of(g.a.dtype), " into ", name_of(g.c.dtype));
}

}  // namespace rf
