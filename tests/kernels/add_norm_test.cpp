#include "kernels/add_norm.hpp"

#include "core/cpu.hpp"
#include "kernels/simd/table.hpp"
#include "tests/kernels/check_close.hpp"

#include <vector>

using namespace rf;
using namespace rf::test;

namespace {

std::vector<double> norm(std::vector<double> f, double epsilon) {
    double inv_rms = 0;
    const auto n = static_cast<std::int64_t>(f.size());
    Stream stream;
    add_norm(stream, {.f = view(f.data(), {1, n}), .y = view(f.data(), {1, n}), .inv_rms = view(&inv_rms, {1}), .epsilon = epsilon});
    return f;
}

void check_all(const std::vector<double>& values, const std::vector<double>& expected, double bound) {
    for (std::size_t i = 0; i < expected.size(); ++i) check_close(values[i], expected[i], bound);
}

}  // namespace

BOOST_AUTO_TEST_CASE(epsilon_stands_inside_the_root) {
    check_all(norm({3, 4}, 1e-12), {0.8485281374, 1.1313708499}, 1e-10);
    check_all(norm({3, 4}, 1e-7), {0.8485281340, 1.1313708454}, 1e-10);
    check_all(norm({0.01, -0.02, 0.03, 0}, 1e-7), {0.5344461398, -1.0688922797, 1.6033384195, 0}, 1e-10);
    check_all(norm({0.01, -0.02, 0.03, 0}, 1e-12), {0.5345224831, -1.0690449661, 1.6035674492, 0}, 1e-10);
}

BOOST_AUTO_TEST_CASE(backward_gives_the_published_gradient) {
    std::vector<double> y{1, -2, 3, .5}, dy{.1, .2, -.3, .4};
    double inv_rms = 0;
    Stream stream;
    add_norm(stream, {.f = view(y.data(), {1, 4}), .y = view(y.data(), {1, 4}), .inv_rms = view(&inv_rms, {1}), .epsilon = 1e-7});
    check_all(y, {0.5298129354, -1.0596258708, 1.5894388062, 0.2649064677}, 1e-10);
    add_norm_backward(stream, {.dy = view(dy.data(), {1, 4}), .y = view(y.data(), {1, 4}), .inv_rms = view(&inv_rms, {1}), .df = view(dy.data(), {1, 4})});
    check_all(dy, {0.0901611476, 0.0316028789, -0.0474043184, 0.2305151012}, 1e-10);
}

BOOST_AUTO_TEST_CASE(every_instruction_set_gives_the_same_bits) {
    const std::int64_t n = 1000;  // not a multiple of the lanes
    std::vector<float> x(n), f(n), z(n);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i)), f[i] = std::cos(static_cast<float>(3 * i));
    const simd::DropRow drop{.threshold = 6554, .key = {1, 2}, .position = 3, .sample = 4, .stream = 5, .scale = 1.1};
    std::vector<std::vector<float>> results;
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > cpu_isa()) continue;
        std::vector<float> y(n);
        simd::table_of(isa).f32.add_norm({.x = x.data(), .f = f.data(), .y = y.data(), .z = z.data(), .n = n, .alpha = 0.7, .epsilon = 1e-12}, drop);
        std::vector<float> p = y;
        simd::table_of(isa).real32.softmax(p.data(), n, 0.125F, drop);
        y.insert(y.end(), p.begin(), p.end());
        results.push_back(y);
    }
    for (const auto& other : results) BOOST_TEST((other == results.front()));
}

BOOST_AUTO_TEST_CASE(dropout_bits_are_those_of_philox) {
    std::vector<std::uint16_t> bits(300);
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (isa > cpu_isa()) continue;
        simd::table_of(isa).dropout_bits({.threshold = 1, .key = {7, 8}, .position = 9, .sample = 10, .stream = 11}, bits.data(), 300);
        for (std::uint32_t e = 0; e < 300; ++e) {
            const std::uint32_t word = philox({e / 8, 9, 10, 11}, {7, 8})[(e % 8) / 2];
            BOOST_TEST(bits[e] == (e % 2 == 0 ? word & 0xffffU : word >> 16));
        }
    }
}

BOOST_AUTO_TEST_CASE(dropout_keeps_nine_tenths_and_the_mean) {
    const std::int64_t tokens = 200, c = 512;
    std::vector<float> f(tokens * c, 1), y(tokens * c), inv(tokens);
    std::vector<std::int32_t> sample(tokens, 3), position(tokens);
    for (std::size_t t = 0; t < position.size(); ++t) position[t] = static_cast<std::int32_t>(t);
    Stream stream;
    add_norm(stream, {.f = view(f.data(), {tokens, c}), .y = view(y.data(), {tokens, c}), .normalise = false,
                      .dropout = {.rate = 0.1, .seed = 5, .detail = 2},
                      .origin = {.sample = view(sample.data(), {tokens}), .position = view(position.data(), {tokens})}});
    double sum = 0;
    std::int64_t kept = 0;
    for (const float v : y) sum += v, kept += v != 0;
    // Binomial: the standard deviation of the kept share is 0.00094; four of them.
    BOOST_TEST(std::abs(static_cast<double>(kept) / static_cast<double>(y.size()) - 0.9) < 0.0038);
    BOOST_TEST(std::abs(sum / static_cast<double>(y.size()) - 1) < 0.0042);
}
