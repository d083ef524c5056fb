#include "kernels/rotary.hpp"

#include "tests/kernels/check_close.hpp"

#include <array>
#include <vector>

using namespace rf;
using namespace rf::test;

namespace {

/// Rotates one head of four channels at position m with angles m and m / 100.
std::array<double, 4> rotate(std::array<double, 4> x, std::int32_t m, bool back = false) {
    std::vector<double> table(12 * 4);
    rotary_table(view(table.data(), {12, 2, 2}));
    std::vector<double> qkv(12, 0);
    std::copy(x.begin(), x.end(), qkv.begin());
    Stream stream;
    const Rotary args{.qkv = view(qkv.data(), {1, 3, 1, 4}), .position = view(&m, {1}), .table = view(table.data(), {12, 2, 2})};
    back ? rotary_backward(stream, args) : rotary(stream, args);
    std::copy_n(qkv.begin(), 4, x.begin());
    return x;
}

double dot(const std::array<double, 4>& a, const std::array<double, 4>& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]; }

}  // namespace

BOOST_AUTO_TEST_CASE(pairs_are_interleaved) {
    const std::array<double, 4> at_1{-1.1426396637, 1.9220755965, 2.9598506679, 4.0297995017};
    const std::array<double, 4> at_10{0.2489706927, -2.222164169, 2.5856788292, 4.2795169111};
    const std::array<double, 4> half_split{-1.9841106486, 1.9599006675, 2.4623779024, 4.0197996683};
    const auto one = rotate({1, 2, 3, 4}, 1), ten = rotate({1, 2, 3, 4}, 10);
    for (std::size_t i = 0; i < 4; ++i) {
        check_close(one[i], at_1[i], 1e-10);
        check_close(ten[i], at_10[i], 1e-10);
        BOOST_TEST(std::abs(one[i] - half_split[i]) > 1e-3);  // the wrong convention
    }
}

BOOST_AUTO_TEST_CASE(products_depend_on_the_distance_only) {
    const std::array<double, 4> q{1, 0, .5, -1}, k{.25, 2, -1, .5};
    check_close(dot(rotate(q, 3), rotate(k, 1)), 0.699759137828, 1e-11);
    check_close(dot(rotate(q, 5), rotate(k, 3)), 0.699759137828, 1e-11);
    check_close(dot(rotate(q, 1), rotate(k, 3)), -2.907432569435, 1e-11);
}

BOOST_AUTO_TEST_CASE(angles_of_64_channels_have_the_published_frequencies) {
    std::vector<double> table(2 * 64);
    rotary_table(view(table.data(), {2, 32, 2}));
    check_close(std::atan2(table[64 + 3], table[64 + 2]), 0.7498942093, 1e-10);
    check_close(std::atan2(table[64 + 63], table[64 + 62]) / 1.333521432163e-4, 1, 1e-11);
}

BOOST_AUTO_TEST_CASE(backward_turns_back) {
    const auto there_and_back = rotate(rotate({1, 2, 3, 4}, 7), 7, true);
    for (std::size_t i = 0; i < 4; ++i) check_close(there_and_back[i], static_cast<double>(i) + 1, tolerance(Dtype::f64, 2));
}
