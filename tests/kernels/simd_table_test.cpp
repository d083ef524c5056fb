/// Row functions of every instruction set the processor has: the same bits, at lengths around the sixteen lanes and the 128
/// draws of a dropout block.

#include "kernels/simd/table.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/check_close.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>

using namespace rf;
using namespace rf::test;

namespace {

const std::int64_t lengths[] = {1, 2, 15, 16, 17, 31, 33, 127, 128, 129, 1000};
const simd::DropRow drop{.threshold = 6554, .key = {1, 2}, .position = 3, .sample = 4, .stream = 5, .scale = 65536.0 / 58982};

std::vector<Isa> sets() {
    std::vector<Isa> known;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (isa <= cpu_isa()) known.push_back(isa);
    return known;
}

template <class T>
std::vector<T> typed(const std::vector<double>& x) {
    std::vector<T> out;
    for (const double v : x) {
        if constexpr (std::is_same_v<T, std::uint16_t>) out.push_back(bfloat16(static_cast<float>(v)).bits);
        else out.push_back(static_cast<T>(v));
    }
    return out;
}
template <class T>
std::vector<T> row(std::int64_t n, std::uint32_t stream) {
    return typed<T>(numbers(n, stream));
}

/// The bytes that a function left behind, whatever their types.
class Bytes {
public:
    template <class T>
    void keep(const std::vector<T>& v) {
        const auto* begin = reinterpret_cast<const unsigned char*>(v.data());
        all_.insert(all_.end(), begin, begin + v.size() * sizeof(T));
    }
    template <class T>
    void keep_one(T v) {
        keep(std::vector<T>{v});
    }
    friend bool operator==(const Bytes&, const Bytes&) = default;

private:
    std::vector<unsigned char> all_;
};

using Run = std::function<void(const simd::Table&, std::int64_t, Bytes&)>;

void check_same(const char* name, const Run& run) {
    for (const std::int64_t n : lengths) {
        Bytes first;
        run(simd::table_of(Isa::baseline), n, first);
        for (const Isa isa : sets()) {
            Bytes other;
            run(simd::table_of(isa), n, other);
            BOOST_TEST((other == first), name << " of " << n << " elements differs between baseline and " << name_of(isa));
        }
    }
}

template <class T>
void check_rows(const std::string& type, simd::RowTable<T> simd::Table::*member) {
    using R = simd::Real<T>;
    const auto check = [&](const char* name, const auto& body) {
        check_same((type + " " + name).c_str(), [&](const simd::Table& t, std::int64_t n, Bytes& out) { body(t.*member, n, out); });
    };
    for (const bool normalise : {true, false}) {
        check("add_norm", [&](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
            const auto x = row<T>(n, 1), f = row<T>(n, 2);
            std::vector<T> y(x.size());
            std::vector<R> z(x.size());
            out.keep_one(t.add_norm({.x = x.data(), .f = f.data(), .y = y.data(), .z = z.data(), .n = n, .alpha = 0.7, .epsilon = 1e-12, .normalise = normalise}, drop));
            out.keep(y);
        });
        check("add_norm_backward", [&](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
            const auto dy = row<T>(n, 1), y = row<T>(n, 2), f = row<T>(n, 3);
            std::vector<T> dx(dy.size()), df(dy.size());
            out.keep_one(t.add_norm_backward({.dy = dy.data(), .y = y.data(), .f = f.data(), .dx = dx.data(), .df = df.data(), .n = n, .inv_rms = R(1.3),
                                              .alpha = 0.7, .normalise = normalise}, drop));
            out.keep(dx), out.keep(df);
        });
    }
    for (const bool centre : {true, false}) {
        check("layer_norm and its gradient", [&](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
            const auto x = row<T>(n, 1), f = row<T>(n, 2), gain = row<T>(n, 3), bias = row<T>(n, 4);
            std::vector<T> normalised(x.size()), y(x.size()), dx(x.size()), df(x.size());
            std::vector<R> z(x.size()), sums(x.size());
            out.keep_one(t.layer_norm({.x = x.data(), .f = f.data(), .gain = gain.data(), .bias = bias.data(), .normalised = normalised.data(), .y = y.data(), .z = z.data(), .n = n,
                                       .alpha = 0.7, .epsilon = 1e-12, .centre = centre}, drop));
            out.keep(normalised), out.keep(y);
            t.layer_norm_backward({.dy = f.data(), .normalised = normalised.data(), .gain = gain.data(), .dx = dx.data(), .df = df.data(), .n = n, .inv_std = R(1.3), .alpha = 0.7,
                                   .centre = centre}, drop);
            t.accumulate_product(f.data(), x.data(), sums.data(), n);
            out.keep(dx), out.keep(df), out.keep(sums);
        });
    }
    check("positive, gelu and their gradients", [](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
        auto x = row<T>(n, 1);
        const auto dy = row<T>(n, 2);
        std::vector<T> y(x.size());
        t.positive(x.data(), y.data(), n), out.keep(y);
        t.positive_backward(x.data(), dy.data(), y.data(), n), out.keep(y);
        t.gelu(x.data(), y.data(), n), out.keep(y);
        t.gelu_backward(x.data(), dy.data(), y.data(), n), out.keep(y);
    });
    check("rotate", [](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
        auto x = row<T>(2 * n, 1);
        const auto angles = row<R>(2 * n, 2);
        t.rotate(x.data(), angles.data(), 2 * n, -1);
        out.keep(x);
    });
    check("relu, add, add_scaled, accumulate, sum_rows, dot, widen, narrow", [](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
        const auto a = row<T>(n, 1), b = row<T>(n, 2);
        auto y = b, z = a;
        std::vector<std::uint8_t> mask(static_cast<std::size_t>((n + 7) / 8), 0xa5);
        t.relu(z.data(), mask.data(), n), out.keep(z), out.keep(mask);
        t.relu_backward(y.data(), mask.data(), n), out.keep(y);
        t.add(a.data(), y.data(), n), out.keep(y);
        t.add_scaled(a.data(), y.data(), n, R(0.3)), out.keep(y);
        auto total = row<R>(n, 3);
        t.accumulate(a.data(), total.data(), n), out.keep(total);
        t.sum_rows(a.data(), b.data(), y.data(), n), out.keep(y);
        t.sum_rows(nullptr, b.data(), y.data(), n), out.keep(y);
        out.keep_one(t.dot(a.data(), b.data(), n));
        t.widen(a.data(), total.data(), n), out.keep(total);
        t.narrow(total.data(), y.data(), n), out.keep(y);
    });
    check("softmax_gradient", [](const simd::RowTable<T>& t, std::int64_t n, Bytes& out) {
        const auto logits = row<R>(n, 1);
        std::vector<T> d(logits.size());
        t.softmax_gradient(logits.data(), d.data(), n, {.maximum = 1, .sum = R(n)}, n / 2, R(0.25));
        out.keep(d);
    });
}

template <class R>
void check_reals(const std::string& type, simd::RealTable<R> simd::Table::*member) {
    const auto check = [&](const char* name, const auto& body) {
        check_same((type + " " + name).c_str(), [&](const simd::Table& t, std::int64_t n, Bytes& out) { body(t.*member, n, out); });
    };
    // Rows with room for whole vectors, and numbers behind them that must not count.
    const auto scores_of = [](std::int64_t n, std::uint32_t stream) {
        auto x = row<R>((n + 15) / 16 * 16, stream);
        std::fill(x.begin() + n, x.end(), R(50));
        return x;
    };
    check("softmax", [&](const simd::RealTable<R>& t, std::int64_t n, Bytes& out) {
        auto scores = scores_of(n, 1);
        const auto r = t.softmax(scores.data(), n, R(3), drop);
        scores.resize(static_cast<std::size_t>(n));
        out.keep(scores), out.keep_one(r.maximum), out.keep_one(r.sum);
    });
    check("softmax_backward", [&](const simd::RealTable<R>& t, std::int64_t n, Bytes& out) {
        auto scores = scores_of(n, 1), d = scores_of(n, 2);
        t.softmax_backward(scores.data(), d.data(), n, R(3), R(2), R(0.1), drop);
        t.scale(d.data(), n, R(0.3));
        scores.resize(static_cast<std::size_t>(n)), d.resize(scores.size());
        out.keep(scores), out.keep(d);
    });
    check("largest, exp_sum, exp, product_sum", [](const simd::RealTable<R>& t, std::int64_t n, Bytes& out) {
        auto x = row<R>(n, 1);
        for (R& v : x) v *= 90;  // beyond both ends of f32's exponent
        R largest = 0;
        out.keep_one(t.largest(x.data(), n, &largest)), out.keep_one(largest);
        out.keep_one(t.exp_sum(x.data(), n, largest));
        std::vector<R> y(x.size());
        t.exp(x.data(), y.data(), n), out.keep(y);
        const auto other = row<R>(n, 2);
        out.keep_one(t.product_sum(x.data(), other.data(), n));
    });
    check("update_moments, apply_update, AdaFactor", [](const simd::RealTable<R>& t, std::int64_t n, Bytes& out) {
        auto w = row<R>(n, 1), m = row<R>(n, 2), v = row<R>(n, 3);
        const auto g = row<R>(n, 4);
        for (R& x : v) x = x * x;
        const simd::MomentRun<R> run{w.data(), m.data(), v.data(), g.data(), n};
        const simd::MomentRule<R> rule{R(0.9), R(0.1), R(0.999), R(0.001), R(1e-6), R(0.01), R(0.3), R(0.2), R(0.7)};
        const auto sums = t.update_moments(run, rule);
        out.keep_one(sums.weight), out.keep_one(sums.update), out.keep_one(sums.gradient);
        t.apply_update(run, rule, R(0.01));
        out.keep(w), out.keep(m), out.keep(v);
        const auto factor_sums = t.adafactor_moments(run, rule);
        out.keep_one(factor_sums.weight), out.keep_one(factor_sums.update), out.keep_one(factor_sums.gradient);
        t.apply_adafactor(run, rule, R(0.01), R(0.5));
        out.keep(w), out.keep(m), out.keep(v);
    });
}

/// Small products of one set beside sums in f64, in place of numbers that were there and of none.
template <class R>
void check_product(Isa isa, const simd::RealTable<R>& table, double tolerance) {
    const std::int64_t room = 5;
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 16, 1}, {2, 32, 64}, {5, 48, 3}, {6, 16, 0}, {7, 64, 17}, {8, 80, 16}, {15, 32, 8}, {29, 112, 40}})
        for (const bool transpose : {false, true})
            for (const bool accumulate : {false, true}) {
                const std::int64_t lda = (transpose ? m : k) + room, ldb = n + room, ldc = n + room;
                const auto a = row<R>(lda * (transpose ? k : m), 1), b = row<R>(ldb * k, 2), before = row<R>(ldc * m, 3);
                auto c = before;
                table.product({.a = a.data(), .row_a = transpose ? 1 : lda, .step_a = transpose ? lda : 1, .b = b.data(), .ldb = ldb, .c = c.data(), .ldc = ldc, .m = m, .n = n,
                               .k = k, .accumulate = accumulate});
                double worst = 0;
                for (std::int64_t i = 0; i < m; ++i)
                    for (std::int64_t j = 0; j < ldc; ++j) {
                        const auto at = static_cast<std::size_t>(i * ldc + j);
                        double sum = j >= n || accumulate ? static_cast<double>(before[at]) : 0;
                        for (std::int64_t l = 0; l < k && j < n; ++l)
                            sum += static_cast<double>(a[static_cast<std::size_t>(transpose ? l * lda + i : i * lda + l)]) * static_cast<double>(b[static_cast<std::size_t>(l * ldb + j)]);
                        worst = std::max(worst, std::abs(static_cast<double>(c[at]) - sum));
                    }
                BOOST_TEST(worst <= tolerance, m << " x " << n << " x " << k << (transpose ? " of A transposed" : "") << " by " << name_of(isa) << ": off by " << worst);
            }
}

}  // namespace

BOOST_AUTO_TEST_CASE(small_products_are_sums_over_k_and_touch_nothing_else) {
    for (const Isa isa : sets()) {
        check_product(isa, simd::table_of(isa).real32, 64 * 64 * 0x1p-24);  // 64 terms below 64 in all, each rounded
        check_product(isa, simd::table_of(isa).real64, 64 * 64 * 0x1p-53);
    }
}

BOOST_AUTO_TEST_CASE(rows_have_the_same_bits_in_every_instruction_set) {
    check_rows<float>("f32", &simd::Table::f32);
    check_rows<std::uint16_t>("bf16", &simd::Table::bf16);
    check_rows<double>("f64", &simd::Table::f64);
}

BOOST_AUTO_TEST_CASE(accumulators_have_the_same_bits_in_every_instruction_set) {
    check_reals<float>("f32", &simd::Table::real32);
    check_reals<double>("f64", &simd::Table::real64);
}

BOOST_AUTO_TEST_CASE(casts_and_draws_have_the_same_bits_in_every_instruction_set) {
    check_same("casts", [](const simd::Table& t, std::int64_t n, Bytes& out) {
        const auto narrow = row<float>(n, 1);
        const auto wide = row<double>(n, 2);
        std::vector<double> up(narrow.size());
        std::vector<float> down(narrow.size());
        t.f32_to_f64(narrow.data(), up.data(), n), out.keep(up);
        t.f64_to_f32(wide.data(), down.data(), n), out.keep(down);
    });
    check_same("dropout_bits", [](const simd::Table& t, std::int64_t n, Bytes& out) {
        std::vector<std::uint16_t> bits(static_cast<std::size_t>(n));
        t.dropout_bits(drop, bits.data(), n);
        out.keep(bits);
    });
}

BOOST_AUTO_TEST_CASE(draws_are_those_of_philox) {
    std::vector<std::uint16_t> bits(300);
    for (const Isa isa : sets()) {
        simd::table_of(isa).dropout_bits({.threshold = 1, .key = {7, 8}, .position = 9, .sample = 10, .stream = 11}, bits.data(), 300);
        for (std::uint32_t e = 0; e < 300; ++e) {
            const std::uint32_t word = philox({e / 8, 9, 10, 11}, {7, 8})[(e % 8) / 2];
            BOOST_TEST(bits[e] == (e % 2 == 0 ? word & 0xffffU : word >> 16));
        }
    }
}

BOOST_AUTO_TEST_CASE(the_exponential_is_as_accurate_as_its_header_says) {
    for (const Isa isa : sets()) {
        std::vector<float> x, y(20001);
        for (int i = 0; i <= 20000; ++i) x.push_back(-87.0F + static_cast<float>(i) * (175.5F / 20000));
        simd::table_of(isa).real32.exp(x.data(), y.data(), 20001);
        double worst = 0;
        for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(y[i]) / std::exp(static_cast<double>(x[i])) - 1));
        BOOST_TEST(worst < 2e-7);
        std::vector<double> wide, out(20001);
        for (int i = 0; i <= 20000; ++i) wide.push_back(-700 + i * 0.07);
        simd::table_of(isa).real64.exp(wide.data(), out.data(), 20001);
        worst = 0;
        for (std::size_t i = 0; i < wide.size(); ++i) worst = std::max(worst, std::abs(out[i] / std::exp(wide[i]) - 1));
        // The argument's own half unit becomes |n| ulp(ln2's low part) at most; four units are ample and still f64.
        BOOST_TEST(worst < 4 * 0x1p-52);
    }
}

BOOST_AUTO_TEST_CASE(the_exponential_of_extremes) {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (const Isa isa : sets()) {
        const std::vector<float> x{0, -inf, inf, nan, -1e30F, 1e30F, -88, 89};
        std::vector<float> y(x.size());
        simd::table_of(isa).real32.exp(x.data(), y.data(), 8);
        BOOST_TEST(y[0] == 1);
        BOOST_TEST(y[1] == 0);
        BOOST_TEST(y[2] == inf);
        BOOST_TEST(std::isnan(y[3]));
        BOOST_TEST(y[4] == 0);
        BOOST_TEST(y[5] == inf);
        BOOST_TEST(y[6] == 0);
        BOOST_TEST(y[7] == inf);
    }
}

BOOST_AUTO_TEST_CASE(transposes_move_every_element_and_no_other) {
    for (const Isa isa : sets())
        for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {8, 8}, {3, 40}, {17, 5}, {64, 33}}) {
            const std::int64_t ldx = columns + 3, ldy = rows + 2;
            const std::vector<float> x = row<float>(rows * ldx, 1);
            std::vector<float> y(static_cast<std::size_t>(columns * ldy), 7), expected = y;
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) expected[static_cast<std::size_t>(j * ldy + i)] = x[static_cast<std::size_t>(i * ldx + j)];
            simd::table_of(isa).transpose(x.data(), ldx, rows, columns, y.data(), ldy);
            BOOST_TEST((y == expected), rows << " x " << columns << " by " << name_of(isa));
        }
}
