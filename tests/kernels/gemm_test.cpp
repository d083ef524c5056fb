#include "kernels/gemm.hpp"

#include "core/cpu.hpp"
#include "core/philox.hpp"
#include "tests/kernels/check_close.hpp"

#include <vector>

using namespace rf;
using namespace rf::test;

namespace {

std::vector<double> numbers(std::int64_t n, std::uint32_t stream) {
    std::vector<double> out(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = 2 * uniform(philox({static_cast<std::uint32_t>(i), stream, 0, 0}, {1, 1})[0]) - 1;
    return out;
}

template <class T>
std::vector<T> as(const std::vector<double>& x) {
    std::vector<T> out;
    for (const double v : x) out.push_back(T(static_cast<float>(v)));
    return out;
}

/// C by the definition, from the operands as stored.
template <class T>
void check_product(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, double beta) {
    const auto a = as<T>(numbers(m * k, 1)), b = as<T>(numbers(k * n, 2));
    std::vector<float> c = as<float>(numbers(m * n, 3));
    const std::vector<float> before = c;
    Stream stream;
    gemm(stream, {.a = view(a.data(), ta ? Shape{k, m} : Shape{m, k}), .trans_a = ta, .b = view(b.data(), tb ? Shape{n, k} : Shape{k, n}), .trans_b = tb,
                  .c = view(c.data(), {m, n}), .beta = beta});
    for (std::int64_t i = 0; i < m; i += 1 + m / 7) {
        for (std::int64_t j = 0; j < n; j += 1 + n / 7) {
            double sum = beta * before[static_cast<std::size_t>(i * n + j)];
            for (std::int64_t l = 0; l < k; ++l)
                sum += static_cast<double>(static_cast<float>(a[static_cast<std::size_t>(ta ? l * m + i : i * k + l)])) *
                       static_cast<double>(static_cast<float>(b[static_cast<std::size_t>(tb ? j * k + l : l * n + j)]));
            check_close(c[static_cast<std::size_t>(i * n + j)], sum, tolerance(Dtype::f32, k));
        }
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(products_agree_with_their_definition) {
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 5, 2}, {130, 17, 65}, {300, 400, 70}, {270, 700, 70}, {4, 4, 0}})
        for (const bool ta : {false, true})
            for (const bool tb : {false, true})
                for (const double beta : {0.0, 1.0}) {
                    check_product<float>(m, n, k, ta, tb, beta);
                    check_product<bfloat16>(m, n, k, ta, tb, beta);
                }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    const std::int64_t m = 700, n = 500, k = 384;
    const auto a = as<float>(numbers(m * k, 1)), b = as<float>(numbers(k * n, 2));
    const auto a16 = as<bfloat16>(numbers(m * k, 1)), b16 = as<bfloat16>(numbers(k * n, 2));
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3, 5}) {
        set_thread_count(threads);
        std::vector<float> c(2 * m * n);
        Stream stream;
        gemm(stream, {.a = view(a.data(), {m, k}), .b = view(b.data(), {k, n}), .c = view(c.data(), {m, n})});
        gemm(stream, {.a = view(a16.data(), {m, k}), .b = view(b16.data(), {k, n}), .c = view(c.data() + m * n, {m, n})});
        results.push_back(c);
    }
    set_thread_count(cpu_count());
    for (const auto& other : results) BOOST_TEST((other == results.front()));
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
    std::vector<float> x(100);
    Stream stream;
    BOOST_CHECK_THROW(gemm(stream, {.a = view(x.data(), {2, 3}), .b = view(x.data(), {2, 3}), .c = view(x.data() + 50, {2, 3})}), Error);
}
