#include "kernels/optimizer.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// Optimizer state is f32 or f64.
std::vector<DeviceCase> state_cases() {
    std::vector<DeviceCase> cases;
    for (const DeviceCase& on : device_cases())
        if (on.dtype != Dtype::bf16) cases.push_back(on);
    return cases;
}

struct State {
    DeviceTensor weight, m, v, gradient;
    std::int64_t offset;
    State(const DeviceCase& on, const std::vector<double>& w, const std::vector<double>& m, const std::vector<double>& v, const std::vector<double>& g,
          std::int64_t offset = 0)
        : weight(on.put({count(w)}, w)), m(on.put({count(w)}, m)), v(on.put({count(w)}, v)), gradient(on.put({count(w)}, g)), offset(offset) {}
    static std::int64_t count(const std::vector<double>& x) { return static_cast<std::int64_t>(x.size()); }
    OptimizerShard shard() const { return {weight, m, v, gradient, offset}; }
};

}  // namespace

BOOST_AUTO_TEST_CASE(moments_and_sums_by_hand) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {3, -4}, {1, 0}, {4, 1}, {2, -1});
        const MomentUpdate rule{.beta1 = 0.5, .beta2 = 0.75, .epsilon = 1, .decay = 0.25};
        const Segment segment[] = {{0, 2, 0}};
        SegmentSums sums[1];
        Stream stream(on.device);
        update_moments(stream, s.shard(), rule, segment, sums);
        check_all(s.m, {1.5, -0.5}, 0);
        check_all(s.v, {4, 1}, 0);
        check_all(s.weight, {3, -4}, 0);
        // u = m / (sqrt(v) + 1) + w / 4 = 1.25, -1.25
        check_close(sums[0].weight, 25, on.tolerance(2));
        check_close(sums[0].update, 3.125, on.tolerance(2));
        check_close(sums[0].gradient, 5, on.tolerance(2));
        const double rate[] = {0.5};
        apply_update(stream, s.shard(), rule, segment, rate);
        check_all(s.weight, {2.375, -3.375}, 0);
    }
}

BOOST_AUTO_TEST_CASE(lamb_takes_the_published_steps) {
    // Trust ratios by hand from the sums: rate = lr |w| / |u|.
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {3, 4}, {0, 0}, {0, 0}, {.1, -.2});
        const Segment segment[] = {{0, 2, 0}};
        Stream stream(on.device);
        const double ratios[] = {1.120002685, 0.834259897}, weights[][2] = {{2.964257601, 4.0349639945}, {2.9285655933, 4.0700760486}};
        for (int step = 0; step < 2; ++step) {
            SegmentSums sums[1];
            update_moments(stream, s.shard(), {}, segment, sums);
            const double ratio = std::sqrt(sums[0].weight / sums[0].update);
            check_close(ratio, ratios[step], std::max(5e-10, on.tolerance(2)));  // ten digits given
            const double rate[] = {0.01 * ratio};
            apply_update(stream, s.shard(), {}, segment, rate);
            check_all(s.weight, {weights[step][0], weights[step][1]}, std::max(5e-10, on.tolerance(2)));
        }
    }
}

BOOST_AUTO_TEST_CASE(bias_correction_makes_the_first_step_as_long_as_the_rate) {
    // AdamW at t = 1: m / c1 = g and v / c2 = g^2, so u = sign(g) up to epsilon, plus decay.
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {2, 2, 2}, {0, 0, 0}, {0, 0, 0}, {0.5, -3, 1e-3});
        const MomentUpdate rule{.epsilon = 1e-12, .decay = 0.1, .correction1 = 1 - 0.9, .correction2 = 1 - 0.999};
        const Segment segment[] = {{0, 3, 0}};
        SegmentSums sums[1];
        const double rate[] = {0.01};
        Stream stream(on.device);
        update_moments(stream, s.shard(), rule, segment, sums);
        apply_update(stream, s.shard(), rule, segment, rate);
        // 1 - 0.999 carries a thousandfold unit roundoff, which the root halves; epsilon is 1e-9 of the smallest gradient.
        const double unit = on.tolerance(1) / 8, bound = on.tolerance(3) + 0.01 * (0.5 * unit / 0.001 + 1e-9);
        check_all(s.weight, {2 - 0.01 * 1.2, 2 + 0.01 * 0.8, 2 - 0.01 * 1.2}, bound);
    }
}

BOOST_AUTO_TEST_CASE(a_gradient_factor_scales_the_gradient_first) {
    for (const DeviceCase& on : state_cases()) {
        const State half(on, {1, 2}, {.5, 0}, {1, 1}, {4, -2}), scaled(on, {1, 2}, {.5, 0}, {1, 1}, {2, -1});
        const Segment segment[] = {{0, 2, 0}};
        SegmentSums a[1], b[1];
        Stream stream(on.device);
        update_moments(stream, half.shard(), {.gradient_factor = 0.5}, segment, a);
        update_moments(stream, scaled.shard(), {}, segment, b);
        check_all(half.m, to_host(scaled.m), 0);
        check_all(half.v, to_host(scaled.v), 0);
        BOOST_TEST(a[0].update == b[0].update);
        BOOST_TEST(a[0].gradient == 5);  // of the scaled gradient
    }
}

BOOST_AUTO_TEST_CASE(a_rate_of_zero_leaves_a_group_untouched) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {1, 2, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0});
        const Segment segments[] = {{0, 1, 0}, {1, 3, 1}};
        const double rate[] = {0, 1};
        Stream stream(on.device);
        apply_update(stream, s.shard(), {.epsilon = 0, .decay = 0}, segments, rate);
        check_all(s.weight, {1, 1, 2}, 0);
    }
}

BOOST_AUTO_TEST_CASE(segments_speak_of_the_flat_layout_not_of_the_shard) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {1, 2, 3, 4}, {0, 0, 0, 0}, {1, 1, 1, 1}, {1, 2, 3, 4}, 4096);
        const Segment segments[] = {{4097, 4098, 0}, {4098, 4100, 2}};  // the first element lies in a gap
        SegmentSums sums[2];
        Stream stream(on.device);
        gradient_sums(stream, s.shard(), segments, sums);
        BOOST_TEST(sums[0].gradient == 4);
        BOOST_TEST(sums[1].gradient == 25);
        BOOST_TEST(sums[1].weight == 0);
        update_moments(stream, s.shard(), {}, segments, sums);
        BOOST_TEST(to_host(s.m)[0] == 0);
        BOOST_TEST(to_host(s.m)[1] != 0);
        const double rate[] = {1, 1, 1};
        apply_update(stream, s.shard(), {}, segments, rate);
        BOOST_TEST(to_host(s.weight)[0] == 1);
        BOOST_TEST(to_host(s.weight)[3] != 4);
    }
}

BOOST_AUTO_TEST_CASE(f32_agrees_with_f64_at_any_length) {
    for (const DeviceCase& on : state_cases())
        for (const std::int64_t n : {1, 15, 16, 17, 4096}) {
            std::vector<double> v = rounded(numbers(n, 3), on.dtype);
            for (double& x : v) x = 0.1 + x * x;  // away from 0, where the root is steep
            v = rounded(v, on.dtype);
            const auto w = rounded(numbers(n, 1), on.dtype), m = rounded(numbers(n, 2), on.dtype), g = rounded(numbers(n, 4), on.dtype);
            const State got(on, w, m, v, g), expected(exact_case(), w, m, v, g);
            const MomentUpdate rule{.correction1 = 0.5, .correction2 = 0.25, .gradient_factor = 0.7};
            const Segment segment[] = {{0, n, 0}};
            const double rate[] = {0.01};
            SegmentSums a[1], b[1];
            Stream stream(on.device), host;
            update_moments(stream, got.shard(), rule, segment, a);
            update_moments(host, expected.shard(), rule, segment, b);
            check_all(got.m, to_host(expected.m), on.tolerance(1));
            check_all(got.v, to_host(expected.v), on.tolerance(1));
            check_close(a[0].weight, b[0].weight, on.tolerance(1));  // sums are in f64: only their terms are rounded
            check_close(a[0].update, b[0].update, on.tolerance(1));
            check_close(a[0].gradient, b[0].gradient, on.tolerance(1));
            gradient_sums(stream, got.shard(), segment, a);
            gradient_sums(host, expected.shard(), segment, b);
            check_close(a[0].gradient, b[0].gradient, on.tolerance(1));
            apply_update(stream, got.shard(), rule, segment, rate);
            apply_update(host, expected.shard(), rule, segment, rate);
            check_all(got.weight, to_host(expected.weight), on.tolerance(1));
        }
}

BOOST_AUTO_TEST_CASE(bf16_state_is_refused) {
    const DeviceCase on{Device::cpu, Dtype::bf16};
    const State s(on, {1}, {0}, {0}, {1});
    const Segment segment[] = {{0, 1, 0}};
    SegmentSums sums[1];
    Stream stream(on.device);
    BOOST_CHECK_THROW(update_moments(stream, s.shard(), {}, segment, sums), Error);
}
