#include "kernels/optimizer.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <limits>

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
    DeviceTensor weight, m, v, gradient, segments, sums;
    std::int64_t offset;
    State(const DeviceCase& on, const std::vector<double>& w, const std::vector<double>& m, const std::vector<double>& v, const std::vector<double>& g,
          const std::vector<Segment>& list = {}, std::int64_t offset = 0)
        : weight(on.put({count(w)}, w)), m(on.put({count(w)}, m)), v(on.put({count(w)}, v)), gradient(on.put({count(w)}, g)), offset(offset) {
        const std::vector<Segment> own = list.empty() ? std::vector<Segment>{{offset, offset + count(w), 0}} : list;  // else all of it is one segment
        const auto n = static_cast<std::int64_t>(own.size());
        segments = DeviceTensor(on.device, {n, static_cast<std::int64_t>(sizeof(Segment))}, Dtype::u8);
        upload(on.stream(), own.data(), segments);
        sums = to_device(on.device, {n, sum_columns}, Dtype::f64, std::vector<double>(static_cast<std::size_t>(n * sum_columns), -7));
    }
    static std::int64_t count(const std::vector<double>& x) { return static_cast<std::int64_t>(x.size()); }
    OptimizerShard shard() const { return {weight, m, v, gradient, offset, segments}; }
    double sum(SumColumn column, std::int64_t segment = 0) const { return to_host(sums)[static_cast<std::size_t>(segment * sum_columns + column)]; }
};

/// The numbers that an update reads; as judge_gradient leaves them when there is nothing to clip.
struct Numbers {
    double lr = 0, correction1 = 1, correction2 = 1, factor = 1, apply = 1;
    DeviceTensor put(const DeviceCase& on) const {
        std::vector<double> control(control_slots, NAN);  // norm and group are read by nothing here
        control[control_lr] = lr, control[control_correction1] = correction1, control[control_correction2] = correction2;
        control[control_gradient_factor] = factor, control[control_apply] = apply, control[control_skipped] = 0;
        return to_device(on.device, {control_slots}, Dtype::f64, control);
    }
};

DeviceTensor doubles(const DeviceCase& on, Shape shape, const std::vector<double>& values) { return to_device(on.device, shape, Dtype::f64, values); }
/// Rows of sums by group, [G, 3].
DeviceTensor table(const DeviceCase& on, const std::vector<double>& values) {
    return doubles(on, {static_cast<std::int64_t>(values.size()) / sum_columns, sum_columns}, values);
}
DeviceTensor rates_of(const DeviceCase& on, const std::vector<double>& values) { return doubles(on, {State::count(values)}, values); }

}  // namespace

BOOST_AUTO_TEST_CASE(moments_and_sums_by_hand) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {3, -4}, {1, 0}, {4, 1}, {2, -1});
        const MomentRule rule{.beta1 = 0.5, .beta2 = 0.75, .epsilon = 1, .decay = 0.25};
        const DeviceTensor control = Numbers{}.put(on);
        update_moments(on.stream(), s.shard(), rule, control, s.sums);
        check_all(s.m, {1.5, -0.5}, 0);
        check_all(s.v, {4, 1}, 0);
        check_all(s.weight, {3, -4}, 0);
        // u = m / (sqrt(v) + 1) + w / 4 = 1.25, -1.25
        check_close(s.sum(weight_sum), 25, on.tolerance(2));
        check_close(s.sum(update_sum), 3.125, on.tolerance(2));
        check_close(s.sum(gradient_sum), 5, on.tolerance(2));
        const DeviceTensor rates = rates_of(on, {0.5});
        apply_update(on.stream(), s.shard(), rule, control, rates);
        check_all(s.weight, {2.375, -3.375}, 0);
    }
}

BOOST_AUTO_TEST_CASE(lamb_takes_the_published_steps) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {3, 4}, {0, 0}, {0, 0}, {.1, -.2});
        const double ratios[] = {1.120002685, 0.834259897}, weights[][2] = {{2.964257601, 4.0349639945}, {2.9285655933, 4.0700760486}};
        const DeviceTensor control = Numbers{.lr = 0.01}.put(on), rates = rates_of(on, {-7});
        const double bound = std::max(5e-10, on.tolerance(2));  // ten digits given
        for (int step = 0; step < 2; ++step) {
            update_moments(on.stream(), s.shard(), {}, control, s.sums);
            // By hand from the sums: rate = lr |w| / |u|.
            check_close(std::sqrt(s.sum(weight_sum) / s.sum(update_sum)), ratios[step], bound);
            update_rates(on.stream(), {.groups = s.sums, .control = control, .rates = rates});  // one segment is one group
            check_close(to_host(rates)[0] / 0.01, ratios[step], bound);
            apply_update(on.stream(), s.shard(), {}, control, rates);
            check_all(s.weight, {weights[step][0], weights[step][1]}, bound);
        }
    }
}

BOOST_AUTO_TEST_CASE(adafactor_takes_the_published_steps) {
    for (const DeviceCase& on : state_cases()) {
        const double bound = std::max(5e-10, on.tolerance(3));  // ten digits given
        std::vector<double> w{3, 4, 0}, m{0, 0, 0}, v{0, 0, 0};
        const std::vector<double> gradients[] = {{.1, -.2, .05}, {.3, .1, -.05}};
        const std::vector<double> moments[] = {{.1, -.1, .1}, {0.2158331459, -0.0242510465, -0.0092123707}};
        const std::vector<double> weights[] = {{2.9998556624, 4.0001443376, -0.0001443376}, {2.9995441323, 4.0001793411, -0.0001310406}};
        for (int t = 0; t < 2; ++t) {
            const State s(on, w, m, v, gradients[t]);
            const DeviceTensor control = Numbers{.lr = 5e-4, .correction2 = std::pow(t + 1, -0.8)}.put(on), rates = doubles(on, {1, 2}, {-7, -7});
            const DeviceTensor sizes = doubles(on, {1}, {3});
            adafactor_moments(on.stream(), s.shard(), control, s.sums);
            check_all(s.m, m, 0);
            adafactor_rates(on.stream(), {.groups = s.sums, .sizes = sizes, .control = control, .rates = rates});  // one segment is one group
            const double rms = t ? 1.0079388214 : 1;
            check_all(rates, {5e-4 * std::sqrt((w[0] * w[0] + w[1] * w[1] + w[2] * w[2]) / 3), 1 / rms}, bound);
            apply_adafactor(on.stream(), s.shard(), 0.9, control, rates);
            w = to_host(s.weight), m = to_host(s.m), v = to_host(s.v);
            check_all(m, moments[t], bound);
            check_all(w, weights[t], bound);
        }
    }
}

BOOST_AUTO_TEST_CASE(adafactor_leaves_alone_what_has_no_gradient_and_all_when_stopped) {
    for (const DeviceCase& on : state_cases()) {
        // rms(w) = 2 and rms(u) = 4; no weight and a small u; no gradient.
        const DeviceTensor groups = table(on, {16, 64, 1, 0, 1, 1, 16, 0, 0}), sizes = doubles(on, {3}, {4, 4, 4}), rates = doubles(on, {3, 2}, std::vector<double>(6, -7));
        const auto rates_for = [&](double apply, bool skip) {
            const DeviceTensor control = Numbers{.lr = 0.5, .apply = apply}.put(on);
            adafactor_rates(on.stream(), {.groups = groups, .sizes = sizes, .control = control, .rates = rates, .skip_zero_gradient = skip});
            return to_host(rates);
        };
        check_all(rates_for(1, true), {1, 0.25, 5e-4, 1, 0, 1}, 0);
        check_all(rates_for(1, false), {1, 0.25, 5e-4, 1, 1, 1}, 0);
        check_all(rates_for(0, false), {0, 0.25, 0, 1, 0, 1}, 0);
        const State s(on, {1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {1, 1, 1});
        const DeviceTensor stopped = Numbers{.apply = 0}.put(on), none = doubles(on, {1, 2}, {0, 1});
        adafactor_moments(on.stream(), s.shard(), stopped, s.sums);
        apply_adafactor(on.stream(), s.shard(), 0.9, stopped, none);
        check_all(s.weight, {1, 2, 3}, 0);
        check_all(s.m, {4, 5, 6}, 0);
        check_all(s.v, {7, 8, 9}, 0);
    }
}

BOOST_AUTO_TEST_CASE(products_of_two_gradients_are_summed_like_squares) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {1, 2, 3}, {{0, 2, 0}, {2, 3, 1}});
        const DeviceTensor other = on.put({3}, {4, -5, 6});
        gradient_sums(on.stream(), s.shard(), s.sums, other);
        check_all(s.sums, {0, 0, -6, 0, 0, 18}, 0);
        const DeviceTensor two = on.zeros({2});
        BOOST_CHECK_THROW(gradient_sums(on.stream(), s.shard(), s.sums, two), Error);
    }
}

BOOST_AUTO_TEST_CASE(bias_correction_makes_the_first_step_as_long_as_the_rate) {
    // AdamW at t = 1: m / c1 = g and v / c2 = g^2, so u = sign(g) up to epsilon, plus decay.
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {2, 2, 2}, {0, 0, 0}, {0, 0, 0}, {0.5, -3, 1e-3});
        const MomentRule rule{.epsilon = 1e-12, .decay = 0.1};
        const DeviceTensor control = Numbers{.lr = 0.01, .correction1 = 1 - 0.9, .correction2 = 1 - 0.999}.put(on), rates = rates_of(on, {0.01});
        update_moments(on.stream(), s.shard(), rule, control, s.sums);
        apply_update(on.stream(), s.shard(), rule, control, rates);
        // 1 - 0.999 carries a thousandfold unit roundoff, which the root halves; epsilon is 1e-9 of the smallest gradient.
        const double unit = on.tolerance(1) / 8, bound = on.tolerance(3) + 0.01 * (0.5 * unit / 0.001 + 1e-9);
        check_all(s.weight, {2 - 0.01 * 1.2, 2 + 0.01 * 0.8, 2 - 0.01 * 1.2}, bound);
    }
}

BOOST_AUTO_TEST_CASE(a_gradient_factor_scales_the_gradient_first) {
    for (const DeviceCase& on : state_cases()) {
        const State half(on, {1, 2}, {.5, 0}, {1, 1}, {4, -2}), scaled(on, {1, 2}, {.5, 0}, {1, 1}, {2, -1});
        const DeviceTensor by_half = Numbers{.factor = 0.5}.put(on), whole = Numbers{}.put(on);
        update_moments(on.stream(), half.shard(), {}, by_half, half.sums);
        update_moments(on.stream(), scaled.shard(), {}, whole, scaled.sums);
        check_all(half.m, to_host(scaled.m), 0);
        check_all(half.v, to_host(scaled.v), 0);
        BOOST_TEST(half.sum(update_sum) == scaled.sum(update_sum));
        BOOST_TEST(half.sum(gradient_sum) == 5);  // of the scaled gradient
    }
}

BOOST_AUTO_TEST_CASE(a_rate_of_zero_leaves_a_group_untouched) {
    for (const DeviceCase& on : state_cases()) {
        const State s(on, {1, 2, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {{0, 1, 0}, {1, 3, 1}});
        const DeviceTensor control = Numbers{}.put(on), rates = rates_of(on, {0, 1});
        apply_update(on.stream(), s.shard(), {.epsilon = 0, .decay = 0}, control, rates);
        check_all(s.weight, {1, 1, 2}, 0);
    }
}

BOOST_AUTO_TEST_CASE(segments_speak_of_the_flat_layout_not_of_the_shard) {
    for (const DeviceCase& on : state_cases()) {
        // The first element lies in a gap.
        const State s(on, {1, 2, 3, 4}, {0, 0, 0, 0}, {1, 1, 1, 1}, {1, 2, 3, 4}, {{4097, 4098, 0}, {4098, 4100, 2}}, 4096);
        const DeviceTensor control = Numbers{}.put(on), rates = rates_of(on, {1, 1, 1});
        gradient_sums(on.stream(), s.shard(), s.sums);
        BOOST_TEST(s.sum(gradient_sum, 0) == 4);
        BOOST_TEST(s.sum(gradient_sum, 1) == 25);
        BOOST_TEST(s.sum(weight_sum, 1) == 0);
        BOOST_TEST(s.sum(update_sum, 1) == 0);
        update_moments(on.stream(), s.shard(), {}, control, s.sums);
        BOOST_TEST(to_host(s.m)[0] == 0);
        BOOST_TEST(to_host(s.m)[1] != 0);
        apply_update(on.stream(), s.shard(), {}, control, rates);
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
            const DeviceCase exact = exact_case();
            const State got(on, w, m, v, g), expected(exact, w, m, v, g);
            const Numbers numbers{.correction1 = 0.5, .correction2 = 0.25, .factor = 0.7};
            const DeviceTensor control = numbers.put(on), exact_control = numbers.put(exact), rates = rates_of(on, {0.01}), exact_rates = rates_of(exact, {0.01});
            const auto check_sums = [&](std::initializer_list<SumColumn> columns) {
                for (const SumColumn c : columns) check_close(got.sum(c), expected.sum(c), on.tolerance(1));  // sums are in f64: only their terms are rounded
            };
            update_moments(on.stream(), got.shard(), {}, control, got.sums);
            update_moments(exact.stream(), expected.shard(), {}, exact_control, expected.sums);
            check_all(got.m, to_host(expected.m), on.tolerance(1));
            check_all(got.v, to_host(expected.v), on.tolerance(1));
            check_sums({weight_sum, update_sum, gradient_sum});
            gradient_sums(on.stream(), got.shard(), got.sums);
            gradient_sums(exact.stream(), expected.shard(), expected.sums);
            check_sums({gradient_sum});
            apply_update(on.stream(), got.shard(), {}, control, rates);
            apply_update(exact.stream(), expected.shard(), {}, exact_control, exact_rates);
            check_all(got.weight, to_host(expected.weight), on.tolerance(1));
        }
}

BOOST_AUTO_TEST_CASE(nothing_is_touched_when_nothing_is_to_be_applied) {
    for (const DeviceCase& on : state_cases()) {
        const std::vector<double> w{3, -4, 5}, m{1, 0, 2}, v{4, 1, 9};
        const State s(on, w, m, v, {2, NAN, 1}, {{0, 2, 0}, {2, 3, 1}});
        const DeviceTensor control = Numbers{.lr = 0.01, .apply = 0}.put(on), rates = rates_of(on, {-7, -7}), groups = table(on, {1, 1, NAN, 4, 4, 4});
        update_moments(on.stream(), s.shard(), {}, control, s.sums);
        check_all(s.m, m, 0);
        check_all(s.v, v, 0);
        for (const bool lamb : {true, false}) {
            update_rates(on.stream(), {.groups = groups, .control = control, .rates = rates, .lamb = lamb, .skip_zero_gradient = false});
            check_all(rates, {0, 0}, 0);
        }
        apply_update(on.stream(), s.shard(), {}, control, rates);
        check_all(s.weight, w, 0);
    }
}

BOOST_AUTO_TEST_CASE(sums_of_segments_are_joined_by_tensor) {
    for (const DeviceCase& on : state_cases()) {
        const DeviceTensor sums = table(on, {1, 2, 3, 10, 20, 30, 100, 200, 300, 5, 6, 7}), groups = table(on, std::vector<double>(12, -7));
        // Two segments, none, one, and one that another rank counts.
        const DeviceTensor begin = on.put_list({0, 2, 2, 3, 4}), counted = to_device(on.device, {4}, Dtype::u8, {1, 1, 1, 0});
        join_sums(on.stream(), {.sums = sums, .group_begin = begin, .counted = counted, .groups = groups});
        check_all(groups, {11, 22, 33, 0, 0, 0, 100, 200, 300, 0, 0, 0}, 0);
    }
    const DeviceCase on = exact_case();
    const DeviceTensor sums = table(on, {1, 2, 3}), groups = table(on, {0, 0, 0}), begin = on.put_list({0}), counted = to_device(on.device, {1}, Dtype::u8, {1});
    BOOST_CHECK_THROW(join_sums(on.stream(), {.sums = sums, .group_begin = begin, .counted = counted, .groups = groups}), Error);
}

BOOST_AUTO_TEST_CASE(a_gradient_is_judged_by_its_global_norm) {
    for (const DeviceCase& on : state_cases()) {
        const auto judge = [&](const std::vector<double>& groups, double max_norm) {
            const DeviceTensor rows = table(on, groups), control = Numbers{.lr = 0.25, .correction1 = 0.5, .correction2 = 0.75, .factor = -7, .apply = -7}.put(on);
            judge_gradient(on.stream(), {.groups = rows, .control = control, .max_norm = max_norm});
            const std::vector<double> all = to_host(control);
            BOOST_TEST((std::vector<double>(all.begin(), all.begin() + 3) == std::vector<double>{0.25, 0.5, 0.75}));  // the caller's
            return std::vector<double>(all.begin() + 3, all.end());
        };
        const double inf = std::numeric_limits<double>::infinity();
        // Norm, factor, apply, last group that is not finite, skipped. Only the gradient's column counts.
        const std::vector<double> fine{inf, inf, 9, inf, inf, 16};
        BOOST_TEST((judge(fine, 0) == std::vector<double>{5, 1, 1, -1, 0}));
        BOOST_TEST((judge(fine, 5) == std::vector<double>{5, 1, 1, -1, 0}));  // at the limit its bits stay
        BOOST_TEST((judge(fine, 2.5) == std::vector<double>{5, 0.5, 1, -1, 0}));
        for (const double bad : {inf, double{NAN}}) {
            const std::vector<double> one = judge({0, 0, 9, 0, 0, bad, 0, 0, bad, 0, 0, 1}, 1);
            BOOST_TEST(one[2] == 0);
            BOOST_TEST(one[3] == 2);
            BOOST_TEST(one[4] == 1);
        }
    }
}

BOOST_AUTO_TEST_CASE(after_more_skips_in_a_row_than_allowed_nothing_is_applied_any_more) {
    for (const DeviceCase& on : state_cases()) {
        const DeviceTensor bad = table(on, {0, 0, std::numeric_limits<double>::quiet_NaN()}), fine = table(on, {0, 0, 4});
        for (const std::int64_t allowed : {0, 2}) {
            const DeviceTensor control = Numbers{.lr = 0.25}.put(on);
            const auto judge = [&](const DeviceTensor& groups) {
                judge_gradient(on.stream(), {.groups = groups, .control = control, .skips_allowed = allowed});
                return to_host(control);
            };
            for (std::int64_t i = 1; i <= allowed; ++i) BOOST_TEST(judge(bad)[control_skipped] == static_cast<double>(i));
            if (allowed > 0) {  // a finite one in between begins the count anew
                const std::vector<double> applied = judge(fine);
                BOOST_TEST(applied[control_apply] == 1);
                BOOST_TEST(applied[control_skipped] == 0);
            }
            for (std::int64_t i = 0; i <= allowed; ++i) judge(bad);
            const std::vector<double> all = judge(fine);
            BOOST_TEST(all[control_apply] == 0);
            BOOST_TEST(all[control_skipped] == static_cast<double>(allowed + 2));
            BOOST_TEST(all[control_not_finite] == -1);
            BOOST_TEST(all[control_gradient_norm] == 2);
        }
    }
}

BOOST_AUTO_TEST_CASE(an_update_is_skipped_for_a_loss_that_is_not_finite) {
    for (const DeviceCase& on : state_cases()) {
        const DeviceTensor fine = table(on, {0, 0, 4}), control = Numbers{.lr = 0.25}.put(on);
        std::vector<double> losses(300, 1.5);  // more than a block has threads
        const auto judge = [&](std::size_t at, double loss) {
            losses[at] = loss;
            const DeviceTensor given = doubles(on, {300}, losses);
            judge_gradient(on.stream(), {.groups = fine, .control = control, .losses = given, .skips_allowed = 9});
            losses[at] = 1.5;
            return to_host(control)[control_apply];
        };
        BOOST_TEST(judge(0, 1) == 1);
        for (const std::size_t at : {std::size_t{0}, std::size_t{77}, std::size_t{299}}) {
            BOOST_TEST(judge(at, double{NAN}) == 0);
            BOOST_TEST(judge(at, -std::numeric_limits<double>::infinity()) == 0);
            BOOST_TEST(judge(at, 2) == 1);
        }
    }
}

BOOST_AUTO_TEST_CASE(rates_are_trust_ratios_for_lamb_alone) {
    for (const DeviceCase& on : state_cases()) {
        // |w| = 5 and |u| = 2; no weight; no update; no gradient.
        const DeviceTensor groups = table(on, {25, 4, 1, 0, 4, 1, 25, 0, 1, 25, 4, 0}), rates = rates_of(on, {-7, -7, -7, -7});
        const auto rates_for = [&](double lr, bool lamb, bool skip) {
            const DeviceTensor control = Numbers{.lr = lr}.put(on);
            update_rates(on.stream(), {.groups = groups, .control = control, .rates = rates, .lamb = lamb, .skip_zero_gradient = skip});
            return to_host(rates);
        };
        check_all(rates_for(0.5, true, true), {1.25, 0.5, 0.5, 0}, 1e-15);
        check_all(rates_for(0.5, true, false), {1.25, 0.5, 0.5, 1.25}, 1e-15);
        check_all(rates_for(0.5, false, true), {0.5, 0.5, 0.5, 0}, 0);
        check_all(rates_for(0.5, false, false), {0.5, 0.5, 0.5, 0.5}, 0);
        // Below a rate of 1e-7 the update's norm shrinks with it: lr |w| / (|u| lr / 1e-7).
        BOOST_TEST(std::abs(rates_for(1e-9, true, true)[0] / 2.5e-7 - 1) < 1e-12);
        check_all(rates_for(0, true, true), {0, 0, 0, 0}, 0);
    }
}

BOOST_AUTO_TEST_CASE(state_and_tables_that_do_not_fit_are_refused) {
    const DeviceCase narrow{Device::cpu, Dtype::bf16}, on{Device::cpu, Dtype::f32};
    const State bf16(narrow, {1}, {0}, {0}, {1}), s(on, {1}, {0}, {0}, {1});
    const DeviceTensor control = Numbers{}.put(on), two = doubles(on, {2, 3}, std::vector<double>(6, 0)), single = on.zeros({1, 3}), short_control = on.zeros({3});
    BOOST_CHECK_THROW(update_moments(narrow.stream(), bf16.shard(), {}, control, bf16.sums), Error);
    BOOST_CHECK_THROW(update_moments(on.stream(), s.shard(), {}, control, two), Error);
    BOOST_CHECK_THROW(gradient_sums(on.stream(), s.shard(), single), Error);
    BOOST_CHECK_THROW(update_moments(on.stream(), s.shard(), {}, short_control, s.sums), Error);
}
