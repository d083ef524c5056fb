/// Tiles of bf16 by every instruction set the processor has: layouts against their definition, products against f64, rows on their way out of f32.

#include "kernels/simd/tiles.hpp"

#include "core/cpu.hpp"
#include "core/dtype.hpp"
#include "tests/kernels/check_close.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <array>
#include <cmath>
#include <limits>

using namespace rf;
using namespace rf::test;

namespace {

struct Named {
    const char* name;
    const simd::TileTable* table;
};
std::vector<Named> tables() {
    std::vector<Named> known{{"portable", &simd::portable_tiles}};
    if (cpu_bf16() >= Bf16::avx512) known.push_back({"avx512", &simd::avx512_bf16_tiles});
    if (cpu_bf16() == Bf16::amx) known.push_back({"amx", &simd::amx_tiles});
    return known;
}

std::uint16_t bits(double x) { return bfloat16(static_cast<float>(x)).bits; }
double value(std::uint16_t x) {
    bfloat16 b;
    b.bits = x;
    return static_cast<double>(static_cast<float>(b));
}

constexpr std::int64_t whole(std::int64_t n, std::int64_t length) { return (n + length - 1) / length * length; }

/// A matrix [lines, depth] in tiles, element by element.
std::vector<std::uint16_t> laid(const std::vector<double>& x, std::int64_t lines, std::int64_t depth, bool is_a) {
    const std::int64_t tiles_across = whole(depth, simd::tile_depth) / simd::tile_depth;
    std::vector<std::uint16_t> out(static_cast<std::size_t>(whole(lines, simd::tile_lines) * whole(depth, simd::tile_depth)), 0);
    for (std::int64_t i = 0; i < lines; ++i)
        for (std::int64_t l = 0; l < depth; ++l) {
            const std::int64_t tile = i / 16 * tiles_across + l / 32, line = i % 16, at = l % 32;
            const std::int64_t inside = is_a ? line * 32 + at : at / 2 * 32 + line * 2 + at % 2;
            out[static_cast<std::size_t>(tile * simd::tile_size + inside)] = bits(x[static_cast<std::size_t>(i * depth + l)]);
        }
    return out;
}

template <class T> T stored(double x) {
    if constexpr (std::is_same_v<T, float>) return static_cast<float>(x);
    else return bits(x);
}

template <class T>
void check_layout(const Named& with, void (*lay)(const simd::Layout<T>&), bool is_a, bool turned, std::int64_t lines, std::int64_t depth) {
    const std::vector<double> x = numbers(lines * depth, 3);
    const std::int64_t rows = turned ? depth : lines, columns = turned ? lines : depth, ld = columns + 5;
    // Not an element more than the matrix reaches: a reader that goes further is found by a sanitizer.
    std::vector<T> source(static_cast<std::size_t>((rows - 1) * ld + columns), stored<T>(1e30));
    for (std::int64_t i = 0; i < lines; ++i)
        for (std::int64_t l = 0; l < depth; ++l) source[static_cast<std::size_t>(turned ? l * ld + i : i * ld + l)] = stored<T>(x[static_cast<std::size_t>(i * depth + l)]);
    const std::vector<std::uint16_t> expected = laid(x, lines, depth, is_a);
    std::vector<std::uint16_t> got(expected.size(), 0x7f80);
    lay({.x = source.data(), .ld = ld, .turned = turned, .lines = lines, .depth = depth, .tiles = got.data()});
    BOOST_TEST((got == expected), with.name << (is_a ? " A " : " B ") << sizeof(T) << " bytes, turned " << turned << ", " << lines << " x " << depth);
}

struct Result {
    std::vector<float> c;
    std::int64_t ld;
};
Result multiply(const simd::TileTable& table, const std::vector<double>& a, const std::vector<double>& b, std::int64_t m, std::int64_t n, std::int64_t k, std::vector<float> c) {
    const std::vector<std::uint16_t> a_tiles = laid(a, m, k, true), b_tiles = laid(b, n, k, false);
    const bool accumulate = !c.empty();
    const std::int64_t ld = whole(n, 16) + 16, depth = whole(k, 32) / 32;
    if (!accumulate) c.assign(static_cast<std::size_t>(whole(m, 16) * ld), std::numeric_limits<float>::quiet_NaN());
    table.product({.a = a_tiles.data(), .step_a = depth * simd::tile_size, .b = b_tiles.data(), .step_b = depth * simd::tile_size, .c = c.data(), .ldc = ld, .rows = whole(m, 16) / 16,
                   .columns = whole(n, 16) / 16, .depth = depth, .accumulate = accumulate});
    return {c, ld};
}

}  // namespace

BOOST_AUTO_TEST_CASE(layouts_put_every_element_in_its_place) {
    for (const Named& with : tables())
        for (const bool turned : {false, true})
            for (const auto& [lines, depth] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {16, 32}, {15, 31}, {17, 33}, {40, 64}, {3, 100}, {70, 2}}) {
                check_layout<std::uint16_t>(with, with.table->lay_a, true, turned, lines, depth);
                check_layout<std::uint16_t>(with, with.table->lay_b, false, turned, lines, depth);
                check_layout<float>(with, with.table->lay_a_f32, true, turned, lines, depth);
                check_layout<float>(with, with.table->lay_b_f32, false, turned, lines, depth);
            }
}

BOOST_AUTO_TEST_CASE(products_agree_with_f64_and_add_to_what_is_there) {
    for (const Named& with : tables())
        for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {16, 16, 32}, {33, 47, 70}, {48, 80, 320}, {64, 32, 65}}) {
            const std::vector<double> a = rounded(numbers(m * k, 1), Dtype::bf16), b = rounded(numbers(n * k, 2), Dtype::bf16);
            const Result once = multiply(*with.table, a, b, m, n, k, {}), twice = multiply(*with.table, a, b, m, n, k, once.c);
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    double sum = 0;
                    for (std::int64_t l = 0; l < k; ++l) sum += a[static_cast<std::size_t>(i * k + l)] * b[static_cast<std::size_t>(j * k + l)];
                    const auto at = static_cast<std::size_t>(i * once.ld + j);
                    check_close(once.c[at], sum, tolerance(Dtype::f32, k));
                    check_close(twice.c[at], 2 * sum, tolerance(Dtype::f32, 2 * k));
                }
        }
}

BOOST_AUTO_TEST_CASE(an_element_has_the_same_bits_in_a_product_of_any_size) {
    const std::int64_t m = 80, n = 112, k = 200;
    const std::vector<double> a = numbers(m * k, 1), b = numbers(n * k, 2);
    for (const Named& with : tables()) {
        const Result all = multiply(*with.table, a, b, m, n, k, {});
        for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{16, 16}, {32, 48}, {48, 32}, {80, 16}}) {
            const Result part = multiply(*with.table, {a.begin(), a.begin() + rows * k}, {b.begin(), b.begin() + columns * k}, rows, columns, k, {});
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j)
                    BOOST_TEST(part.c[static_cast<std::size_t>(i * part.ld + j)] == all.c[static_cast<std::size_t>(i * all.ld + j)]);
        }
    }
}

BOOST_AUTO_TEST_CASE(rows_are_rounded_and_cut_at_zero) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    for (const Named& with : tables())
        for (const std::int64_t n : {1, 7, 8, 9, 16, 17, 24, 25, 100}) {
            std::vector<float> x(static_cast<std::size_t>(n));
            const std::vector<double> random = numbers(n, 4);
            for (std::int64_t i = 0; i < n; ++i) x[static_cast<std::size_t>(i)] = static_cast<float>(random[static_cast<std::size_t>(i)]);
            const float special[] = {0.0F, -0.0F, infinity, -infinity, nan, 1.00390625F, 1.01171875F, -1e-3F};
            for (std::int64_t i = 0; i < n; i += 3) x[static_cast<std::size_t>(i)] = special[i / 3 % 8];
            const std::int64_t mask_bytes = (n + 7) / 8;
            std::vector<std::uint16_t> plain(x.size()), cut(x.size()), back(x.size());
            std::vector<std::uint8_t> mask(static_cast<std::size_t>(mask_bytes), 0xff);
            with.table->narrow(x.data(), plain.data(), n);
            with.table->narrow_relu(x.data(), cut.data(), mask.data(), n);
            with.table->narrow_relu_backward(x.data(), back.data(), mask.data(), n);
            BOOST_TEST_CONTEXT(with.name << ' ' << n)
            for (std::int64_t i = 0; i < mask_bytes * 8; ++i) {
                const bool kept = mask[static_cast<std::size_t>(i / 8)] >> i % 8 & 1;
                if (i >= n) {
                    BOOST_TEST(!kept);
                    continue;
                }
                const auto at = static_cast<std::size_t>(i);
                const float v = x[at];
                BOOST_TEST(kept == (v > 0));
                if (std::isnan(v)) {
                    BOOST_TEST((std::isnan(value(plain[at])) && std::isnan(value(cut[at]))));
                    continue;
                }
                BOOST_TEST(plain[at] == bits(v));
                BOOST_TEST(value(cut[at]) == value(bits(v < 0 ? 0 : v)));
                BOOST_TEST(back[at] == (kept ? bits(v) : 0));
            }
        }
}
