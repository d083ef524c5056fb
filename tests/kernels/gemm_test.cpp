#include "kernels/gemm.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <array>
#include <limits>

using namespace rf;
using namespace rf::test;

namespace {

struct Sizes {
    std::int64_t m, n, k;
};

/// C = op(A) op(B) + beta C by the op, from numbers that the operands' dtype holds exactly.
struct Problem {
    Sizes s;
    bool ta, tb;
    double beta;
    std::vector<double> a, b, c;
    Problem(Sizes s, bool ta, bool tb, double beta, Dtype dtype)
        : s(s), ta(ta), tb(tb), beta(beta), a(rounded(numbers(s.m * s.k, 1), dtype)), b(rounded(numbers(s.k * s.n, 2), dtype)),
          c(rounded(numbers(s.m * s.n, 3), dtype)) {}

    std::vector<double> solve(const DeviceCase& on, Dtype out) const {
        const DeviceTensor x = on.put(ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, a), y = on.put(tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, b);
        const DeviceTensor z = to_device(on.device, {s.m, s.n}, out, c);
        Stream& stream = on.stream();
        gemm(stream, {.a = x, .trans_a = ta, .b = y, .trans_b = tb, .c = z, .beta = beta});
        return to_host(z);
    }
    double expected(std::int64_t i, std::int64_t j) const {
        double sum = beta * c[static_cast<std::size_t>(i * s.n + j)];
        for (std::int64_t l = 0; l < s.k; ++l)
            sum += a[static_cast<std::size_t>(ta ? l * s.m + i : i * s.k + l)] * b[static_cast<std::size_t>(tb ? j * s.k + l : l * s.n + j)];
        return sum;
    }
    void check(const std::vector<double>& got, double bound) const {
        for (std::int64_t i = 0; i < s.m; i += 1 + s.m / 7)
            for (std::int64_t j = 0; j < s.n; j += 1 + s.n / 7) check_close(got[static_cast<std::size_t>(i * s.n + j)], expected(i, j), bound);
    }
};

/// A column times a row through an epilogue: every element is one rounded product, so what the epilogue makes of it is exact.
struct Outer {
    std::vector<double> c, mask;  ///< [m, n], [m, relu_mask_bytes(n)]
};
Outer outer(const DeviceCase& on, const std::vector<double>& column, const std::vector<double>& row, Epilogue epilogue, const std::vector<double>& mask = {}) {
    const auto m = static_cast<std::int64_t>(column.size()), n = static_cast<std::int64_t>(row.size());
    const Shape mask_shape{m, relu_mask_bytes(n)};
    const DeviceTensor a = on.put({m, 1}, column), b = on.put({1, n}, row), c = on.put({m, n}, numbers(m * n, 5));
    const DeviceTensor bits = to_device(on.device, mask_shape, Dtype::u8, mask.empty() ? std::vector<double>(static_cast<std::size_t>(mask_shape.count()), 0xa5) : mask);
    gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue, .mask = bits});
    return {to_host(c), to_host(bits)};
}

bool bit_of(const std::vector<double>& mask, std::int64_t n, std::int64_t i, std::int64_t j) {
    return static_cast<unsigned>(mask[static_cast<std::size_t>(i * relu_mask_bytes(n) + j / 8)]) >> (j % 8) & 1U;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_product_by_hand_in_every_orientation) {
    for (const DeviceCase& on : device_cases()) {
        // [1 2; 3 4; 5 6] [1 0 2; -1 3 1]
        const std::vector<double> expected{-1, 6, 4, -1, 12, 10, -1, 18, 16};
        const DeviceTensor a = on.put({3, 2}, {1, 2, 3, 4, 5, 6}), at = on.put({2, 3}, {1, 3, 5, 2, 4, 6});
        const DeviceTensor b = on.put({2, 3}, {1, 0, 2, -1, 3, 1}), bt = on.put({3, 2}, {1, -1, 0, 3, 2, 1}), c = on.put_wide({3, 3}, std::vector<double>(9, 7));
        Stream& stream = on.stream();
        for (const bool ta : {false, true})
            for (const bool tb : {false, true}) {
                gemm(stream, {.a = ta ? at : a, .trans_a = ta, .b = tb ? bt : b, .trans_b = tb, .c = c});
                check_all(c, expected, 0);
            }
        gemm(stream, {.a = a, .b = b, .c = c, .beta = 1});
        for (std::size_t i = 0; i < 9; ++i) BOOST_TEST(to_host(c)[i] == 2 * expected[i]);
    }
}

BOOST_AUTO_TEST_CASE(products_agree_with_their_definition) {
    // One element, nothing to sum, one row, around the lanes, and several tiles with a remainder.
    for (const Sizes s : {Sizes{1, 1, 1}, {3, 5, 2}, {1, 17, 33}, {17, 1, 16}, {130, 17, 65}, {300, 400, 70}, {270, 700, 70}, {400, 1300, 530}, {4, 4, 0}})
        for (const bool ta : {false, true})
            for (const bool tb : {false, true})
                for (const double beta : {0.0, 1.0})
                    for (const DeviceCase& on : device_cases()) {
                        const Problem p(s, ta, tb, beta, on.dtype);
                        p.check(p.solve(on, accumulator_of(on.dtype)), on.wide_tolerance(s.k));
                        if (on.dtype == Dtype::bf16 && beta == 0) p.check(p.solve(on, Dtype::bf16), tolerance(Dtype::bf16, 1));
                    }
}

BOOST_AUTO_TEST_CASE(matrices_without_rows_or_columns_are_left_alone) {
    for (const DeviceCase& on : device_cases()) {
        BOOST_TEST(Problem({0, 3, 2}, false, false, 0, on.dtype).solve(on, on.dtype).empty());
        BOOST_TEST(Problem({3, 0, 2}, false, true, 0, on.dtype).solve(on, on.dtype).empty());
    }
}

BOOST_AUTO_TEST_CASE(overwriting_does_not_read_what_was_there) {
    for (const DeviceCase& on : device_cases()) {
        Problem p({3, 5, 4}, false, false, 0, on.dtype);
        for (double& x : p.c) x = NAN;
        for (const double x : p.solve(on, accumulator_of(on.dtype))) BOOST_TEST(std::isfinite(x));
    }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    // In tiles or panels.
    for (const auto& [dtype, sizes] : {std::pair<Dtype, Sizes>{Dtype::f32, {700, 500, 384}}, {Dtype::bf16, {700, 500, 384}}, {Dtype::f32, {384, 1152, 1040}}}) {
        const Problem p(sizes, false, false, 0, dtype);
        std::vector<std::vector<double>> results;
        for (const int threads : {1, 2, 3, 5}) {
            set_thread_count(threads);
            results.push_back(p.solve({Device::cpu, dtype}, Dtype::f32));
        }
        set_thread_count(cpu_count());
        for (const auto& other : results) BOOST_TEST((other == results.front()));
    }
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
    const DeviceCase on{Device::cpu, Dtype::f32};
    const DeviceTensor a = on.zeros({2, 3}), b = on.zeros({3, 2}), c = on.zeros({2, 2}), wide(Device::cpu, {3, 2}, Dtype::f64);
    const DeviceTensor a16(Device::cpu, {2, 3}, Dtype::bf16), b16(Device::cpu, {3, 2}, Dtype::bf16), c16(Device::cpu, {2, 2}, Dtype::bf16);
    Stream& stream = on.stream();
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = a, .c = c}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = wide, .c = c}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = b, .c = c16}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = b, .c = c, .beta = 0.5}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a16, .b = b16, .c = c16, .beta = 1}), Error);  // bf16 sums would lose the small terms
}

BOOST_AUTO_TEST_CASE(rows_of_a_mask_are_whole_128_bit_words) {
    BOOST_TEST(relu_mask_bytes(1) == 16);
    BOOST_TEST(relu_mask_bytes(128) == 16);
    BOOST_TEST(relu_mask_bytes(129) == 32);
    BOOST_TEST(relu_mask_bytes(1536) == 192);
}

BOOST_AUTO_TEST_CASE(negative_numbers_become_zero_and_their_gradient_stops) {
    for (const DeviceCase& on : device_cases()) {
        const Outer forward = outer(on, {1}, {-1, -0.0, 0, 2, 0.5}, Epilogue::relu);
        check_all(forward.c, {0, 0, 0, 2, 0.5}, 0);
        BOOST_TEST(forward.mask[0] == (1 << 3 | 1 << 4));
        check_all(outer(on, {1}, {1, 2, 3, 4, 5}, Epilogue::relu_backward, forward.mask).c, {0, 0, 0, 4, 5}, 0);
        // The mask alone decides, whatever the sign of the gradient.
        check_all(outer(on, {1}, {-1, -2, -3, -4, -5}, Epilogue::relu_backward, forward.mask).c, {0, 0, 0, -4, -5}, 0);
    }
}

BOOST_AUTO_TEST_CASE(not_a_number_stays_visible_behind_relu) {
    for (const DeviceCase& on : device_cases()) {
        const Outer r = outer(on, {1}, {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}, Epilogue::relu);
        BOOST_TEST(std::isnan(r.c[0]), on.name());
        BOOST_TEST(r.c[1] == std::numeric_limits<double>::infinity());
    }
}

BOOST_AUTO_TEST_CASE(epilogues_work_at_any_width) {
    // Around the bits of a byte, the lanes, a word of the mask, and over several tiles.
    for (const DeviceCase& on : device_cases())
        for (const auto& [m, n] : {std::pair<std::int64_t, std::int64_t>{3, 1}, {3, 7}, {3, 8}, {3, 15}, {3, 16}, {3, 17}, {2, 127}, {2, 128}, {2, 129}, {300, 401}, {1, (1 << 14) + 3}}) {
            const std::vector<double> column = rounded(numbers(m, 1), on.dtype), row = rounded(numbers(n, 2), on.dtype), slopes = rounded(numbers(n, 3), on.dtype);
            const Outer y = outer(on, column, row, Epilogue::relu), dx = outer(on, column, slopes, Epilogue::relu_backward, y.mask);
            std::vector<double> products, gradients;
            for (const double a : column) {
                for (const double b : row) products.push_back(a * b);
                for (const double b : slopes) gradients.push_back(a * b);
            }
            products = rounded(products, on.dtype), gradients = rounded(gradients, on.dtype);
            std::int64_t wrong = 0;
            for (std::int64_t i = 0; i < m; ++i)
                for (std::int64_t j = 0; j < n; ++j) {
                    const auto at = static_cast<std::size_t>(i * n + j);
                    const bool positive = products[at] > 0;
                    wrong += y.c[at] != (positive ? products[at] : 0) || bit_of(y.mask, n, i, j) != positive || dx.c[at] != (positive ? gradients[at] : 0);
                }
            BOOST_TEST(wrong == 0, wrong << " of " << m << " x " << n << " elements differ, " << on.name());
        }
}

BOOST_AUTO_TEST_CASE(bits_past_the_last_column_of_a_byte_are_zero) {
    for (const DeviceCase& on : device_cases()) {
        const Outer r = outer(on, {1, 2}, std::vector<double>(13, 1.0), Epilogue::relu);
        for (std::int64_t i = 0; i < 2; ++i) BOOST_TEST(r.mask[static_cast<std::size_t>(i * 16 + 1)] == 0x1f);
    }
}

BOOST_AUTO_TEST_CASE(sums_of_nothing_pass_their_epilogue) {
    for (const DeviceCase& on : device_cases())
        for (const Epilogue epilogue : {Epilogue::relu, Epilogue::relu_backward}) {
            const DeviceTensor a = on.zeros({2, 0}), b = on.zeros({0, 5}), c = on.put({2, 5}, std::vector<double>(10, NAN));
            const DeviceTensor mask = to_device(on.device, {2, 16}, Dtype::u8, std::vector<double>(32, 255));
            gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue, .mask = mask});
            check_all(c, std::vector<double>(10, 0), 0);
            if (epilogue == Epilogue::relu) check_all(mask, std::vector<double>(32, 0), 0);
        }
}

BOOST_AUTO_TEST_CASE(gradients_through_relu_agree_with_central_differences) {
    // y = relu(x U) D, as the feed-forward block has it.
    const DeviceCase on = exact_case();
    const std::vector<double> x = numbers(2 * 3, 1), up = numbers(3 * 9, 2), down = numbers(9 * 4, 3), dy = numbers(2 * 4, 4);
    const DeviceTensor u = on.put({3, 9}, up), d = on.put({9, 4}, down), h = on.zeros({2, 9}), mask(on.device, {2, 16}, Dtype::u8);
    const auto forward = [&](const std::vector<double>& at) {
        const DeviceTensor in = on.put({2, 3}, at), y = on.zeros({2, 4});
        gemm(on.stream(), {.a = in, .b = u, .c = h, .epilogue = Epilogue::relu, .mask = mask});
        gemm(on.stream(), {.a = h, .b = d, .c = y});
        return to_host(y);
    };
    const DeviceTensor in = on.put({2, 3}, x), slopes = on.put({2, 4}, dy), dh = on.zeros({2, 9}), dx = on.zeros({2, 3});
    gemm(on.stream(), {.a = in, .b = u, .c = h});
    int positive = 0;
    for (const double v : to_host(h)) {
        BOOST_TEST_REQUIRE(std::abs(v) > 4e-3);  // differences must not reach over the kink
        positive += v > 0;
    }
    BOOST_TEST((positive > 3 && positive < 15));
    forward(x);
    gemm(on.stream(), {.a = slopes, .b = d, .trans_b = true, .c = dh, .epilogue = Epilogue::relu_backward, .mask = mask});
    gemm(on.stream(), {.a = dh, .b = u, .trans_b = true, .c = dx});
    BOOST_TEST(worst_difference(x, to_host(dx), [&](const auto& v) { return dot(forward(v), dy); }) < gradient_bound);
}

BOOST_AUTO_TEST_CASE(epilogues_with_a_wrong_mask_are_refused) {
    const DeviceCase on{Device::cpu, Dtype::f32};
    const DeviceTensor a = on.zeros({2, 3}), b = on.zeros({3, 2}), c = on.zeros({2, 2});
    const DeviceTensor mask(on.device, {2, 16}, Dtype::u8), narrow(on.device, {2, 1}, Dtype::u8), words(on.device, {2, 16}, Dtype::u16);
    for (const Epilogue epilogue : {Epilogue::relu, Epilogue::relu_backward}) {
        gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue, .mask = mask});
        BOOST_CHECK_THROW(gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue}), Error);
        BOOST_CHECK_THROW(gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue, .mask = narrow}), Error);
        BOOST_CHECK_THROW(gemm(on.stream(), {.a = a, .b = b, .c = c, .epilogue = epilogue, .mask = words}), Error);
        BOOST_CHECK_THROW(gemm(on.stream(), {.a = a, .b = b, .c = c, .beta = 1, .epilogue = epilogue, .mask = mask}), Error);
    }
}
