#include "kernels/gemm.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <array>

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
        Stream stream(on.device);
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

}  // namespace

BOOST_AUTO_TEST_CASE(a_product_by_hand_in_every_orientation) {
    for (const DeviceCase& on : device_cases()) {
        // [1 2; 3 4; 5 6] [1 0 2; -1 3 1]
        const std::vector<double> expected{-1, 6, 4, -1, 12, 10, -1, 18, 16};
        const DeviceTensor a = on.put({3, 2}, {1, 2, 3, 4, 5, 6}), at = on.put({2, 3}, {1, 3, 5, 2, 4, 6});
        const DeviceTensor b = on.put({2, 3}, {1, 0, 2, -1, 3, 1}), bt = on.put({3, 2}, {1, -1, 0, 3, 2, 1}), c = on.put_wide({3, 3}, std::vector<double>(9, 7));
        Stream stream(on.device);
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
    for (const Sizes s : {Sizes{1, 1, 1}, {3, 5, 2}, {1, 17, 33}, {17, 1, 16}, {130, 17, 65}, {300, 400, 70}, {270, 700, 70}, {4, 4, 0}})
        for (const bool ta : {false, true})
            for (const bool tb : {false, true})
                for (const double beta : {0.0, 1.0})
                    for (const DeviceCase& on : device_cases()) {
                        const Problem p(s, ta, tb, beta, on.dtype);
                        p.check(p.solve(on, accumulator_of(on.dtype)), tolerance(accumulator_of(on.dtype), s.k));
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
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
        const Problem p({700, 500, 384}, false, false, 0, dtype);
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
    Stream stream(on.device);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = a, .c = c}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = wide, .c = c}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = b, .c = c16}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a, .b = b, .c = c, .beta = 0.5}), Error);
    BOOST_CHECK_THROW(gemm(stream, {.a = a16, .b = b16, .c = c16, .beta = 1}), Error);  // bf16 sums would lose the small terms
}
