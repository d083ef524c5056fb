/// f32 products in panels by every instruction set the processor has: against f64, and their bits.

#include "kernels/gemm_panels.hpp"

#include "core/cpu.hpp"
#include "kernels/simd/table.hpp"
#include "tests/kernels/check_close.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <cmath>
#include <limits>

using namespace rf;
using namespace rf::test;

namespace {

std::vector<Isa> sets() {
    std::vector<Isa> known;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (isa <= cpu_isa()) known.push_back(isa);
    return known;
}

std::vector<float> narrow(const std::vector<double>& x) { return {x.begin(), x.end()}; }

/// Products of one pair of operands, A [m, k] and B [k, n], or of their first rows and columns.
struct Operands {
    std::int64_t m, n, k;
    bool trans_a, trans_b;
    std::vector<float> a, b;
    Operands(std::int64_t m, std::int64_t n, std::int64_t k, bool trans_a, bool trans_b)
        : m(m), n(n), k(k), trans_a(trans_a), trans_b(trans_b), a(narrow(numbers(m * k, 1))), b(narrow(numbers(k * n, 2))) {}

    double a_at(std::int64_t i, std::int64_t l) const { return static_cast<double>(a[static_cast<std::size_t>(trans_a ? l * m + i : i * k + l)]); }
    double b_at(std::int64_t l, std::int64_t j) const { return static_cast<double>(b[static_cast<std::size_t>(trans_b ? j * k + l : l * n + j)]); }
    Operands corner(std::int64_t rows, std::int64_t columns) const {
        Operands part(rows, columns, k, trans_a, trans_b);
        for (std::int64_t l = 0; l < k; ++l) {
            for (std::int64_t i = 0; i < rows; ++i) part.a[static_cast<std::size_t>(trans_a ? l * rows + i : i * k + l)] = static_cast<float>(a_at(i, l));
            for (std::int64_t j = 0; j < columns; ++j) part.b[static_cast<std::size_t>(trans_b ? j * k + l : l * columns + j)] = static_cast<float>(b_at(l, j));
        }
        return part;
    }
    /// Into what `c` holds, added to it where `beta` is 1.
    std::vector<float> multiply(Isa isa, std::vector<float> c, double beta, Epilogue epilogue = Epilogue::none, std::vector<std::uint8_t>* mask = nullptr) const {
        Gemm g{.a = view(a.data(), trans_a ? Shape{k, m} : Shape{m, k}), .trans_a = trans_a, .b = view(b.data(), trans_b ? Shape{n, k} : Shape{k, n}), .trans_b = trans_b,
               .c = view(c.data(), {m, n}), .beta = beta, .epilogue = epilogue};
        if (mask) {
            mask->resize(static_cast<std::size_t>(m * relu_mask_bytes(n)));
            g.mask = view(mask->data(), {m, relu_mask_bytes(n)});
        }
        gemm_in_panels(g, simd::table_of(isa));
        return c;
    }
    std::vector<float> multiply(Isa isa) const { return multiply(isa, std::vector<float>(static_cast<std::size_t>(m * n), std::numeric_limits<float>::quiet_NaN()), 0); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(products_agree_with_f64_in_every_orientation) {
    // One element; around a strip and a panel of any set; several pieces, blocks and passes with remainders.
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {2, 16, 3}, {5, 47, 4}, {6, 48, 5}, {8, 49, 33}, {9, 97, 385}, {131, 200, 70}, {530, 101, 20}, {70, 530, 801}})
        for (const bool trans_a : {false, true})
            for (const bool trans_b : {false, true}) {
                const Operands p(m, n, k, trans_a, trans_b);
                const std::vector<float> c = narrow(numbers(m * n, 3));
                for (const Isa isa : sets()) {
                    const std::vector<float> fresh = p.multiply(isa), added = p.multiply(isa, c, 1);
                    BOOST_TEST_CONTEXT(name_of(isa) << ' ' << m << " x " << n << " x " << k << ' ' << trans_a << trans_b)
                    for (std::int64_t i = 0; i < m; i += 1 + m / 40)
                        for (std::int64_t j = 0; j < n; j += 1 + n / 40) {
                            double sum = 0;
                            for (std::int64_t l = 0; l < k; ++l) sum += p.a_at(i, l) * p.b_at(l, j);
                            const auto at = static_cast<std::size_t>(i * n + j);
                            check_close(fresh[at], sum, tolerance(Dtype::f32, k));
                            check_close(added[at], sum + static_cast<double>(c[at]), tolerance(Dtype::f32, k));
                        }
                }
            }
}

BOOST_AUTO_TEST_CASE(an_element_has_the_same_bits_in_a_product_of_any_size) {
    for (const bool trans_a : {false, true}) {
        const Operands all(150, 210, 700, trans_a, !trans_a);
        for (const Isa isa : sets()) {
            const std::vector<float> whole = all.multiply(isa);
            for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 210}, {7, 48}, {150, 1}, {129, 97}, {20, 50}}) {
                const std::vector<float> part = all.corner(rows, columns).multiply(isa);
                std::int64_t wrong = 0;
                for (std::int64_t i = 0; i < rows; ++i)
                    for (std::int64_t j = 0; j < columns; ++j) wrong += part[static_cast<std::size_t>(i * columns + j)] != whole[static_cast<std::size_t>(i * 210 + j)];
                BOOST_TEST(wrong == 0, wrong << " elements of " << rows << " x " << columns << " differ, " << name_of(isa));
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    for (const bool trans_a : {false, true}) {
        const Operands wide(200, 700, 500, trans_a, false), tall(700, 200, 500, trans_a, true);
        for (const Isa isa : sets())
            for (const Operands* p : {&wide, &tall}) {
                const std::vector<float> usual = p->multiply(isa);
                for (const int threads : {1, 2, 3, 7}) {
                    set_thread_count(threads);
                    BOOST_TEST((p->multiply(isa) == usual));
                }
                set_thread_count(cpu_count());
            }
    }
}

BOOST_AUTO_TEST_CASE(relu_comes_behind_the_last_part_of_the_sum) {
    const Operands p(140, 210, 900, false, true);  // sums change their sign between the parts
    for (const Isa isa : sets()) {
        const std::vector<float> plain = p.multiply(isa);
        std::vector<std::uint8_t> mask;
        const std::vector<float> cut = p.multiply(isa, plain, 0, Epilogue::relu, &mask), back = p.multiply(isa, plain, 0, Epilogue::relu_backward, &mask);
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < p.m; ++i)
            for (std::int64_t j = 0; j < p.n; ++j) {
                const auto at = static_cast<std::size_t>(i * p.n + j);
                const bool kept = mask[static_cast<std::size_t>(i * relu_mask_bytes(p.n) + j / 8)] >> j % 8 & 1;
                wrong += kept != (plain[at] > 0) || cut[at] != std::max(plain[at], 0.0F) || back[at] != (kept ? plain[at] : 0);
            }
        BOOST_TEST(wrong == 0, wrong << " elements differ, " << name_of(isa));
    }
}
