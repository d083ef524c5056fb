#include "kernels/layer_norm.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Problem {
    std::int64_t tokens, channels;
    std::vector<double> x, f, dy, gain, bias;
    double alpha = 0.7, rate = 0;
    bool centre = true;

    Problem(std::int64_t tokens, std::int64_t channels, bool with_x = true, bool with_gain = true)
        : tokens(tokens), channels(channels), x(with_x ? numbers(tokens * channels, 1) : std::vector<double>{}), f(numbers(tokens * channels, 2)),
          dy(numbers(tokens * channels, 3)), gain(with_gain ? numbers(channels, 4) : std::vector<double>{}), bias(with_gain ? numbers(channels, 5) : std::vector<double>{}) {}
};

struct Result {
    std::vector<double> y, normalised, inv_std, dx, df, d_gain, d_bias;
};

Result solve(const DeviceCase& on, const Problem& p, bool in_place = false) {
    const Shape shape{p.tokens, p.channels}, row{p.channels};
    std::vector<double> position, sample;
    for (std::int64_t t = 0; t < p.tokens; ++t) position.push_back(static_cast<double>(t)), sample.push_back(7);
    const DeviceTensor positions = on.put_list(position), samples = on.put_list(sample), none;
    const DeviceTensor x = p.x.empty() ? DeviceTensor() : on.put(shape, p.x), f = on.put(shape, p.f), apart = on.zeros(shape), y = on.zeros(shape);
    const DeviceTensor gain = p.gain.empty() ? DeviceTensor() : on.put(row, p.gain), bias = p.bias.empty() ? DeviceTensor() : on.put(row, p.bias);
    const Tensor normalised = in_place ? f.tensor() : apart.tensor();
    const DeviceTensor inv_std = on.zeros_wide({p.tokens}), dy = on.put(shape, p.dy), df = on.zeros(shape), dx_apart = on.zeros(shape);
    const DeviceTensor d_gain = on.zeros_wide(row), d_bias = on.zeros_wide(row);
    const Tensor dx = p.x.empty() ? Tensor{} : in_place ? dy.tensor() : dx_apart.tensor();
    const Dropout dropout{.rate = p.rate, .seed = 5, .detail = 3};
    const TokenOrigin origin{.sample = samples, .position = positions};
    layer_norm(on.stream(), {.x = x, .f = f, .gain = gain, .bias = bias, .normalised = normalised, .y = y, .inv_std = inv_std, .alpha = p.alpha, .centre = p.centre,
                             .dropout = dropout, .origin = origin});
    layer_norm_backward(on.stream(), {.dy = dy, .normalised = normalised, .inv_std = inv_std, .gain = gain, .dx = dx, .df = df,
                                      .d_gain = p.gain.empty() ? Tensor{} : d_gain.tensor(), .d_bias = p.bias.empty() ? Tensor{} : d_bias.tensor(), .alpha = p.alpha,
                                      .centre = p.centre, .dropout = dropout, .origin = origin});
    const auto host = [](const DeviceTensor& t) { return to_host(t); };
    return {host(y), host(in_place ? f : apart), host(inv_std), p.x.empty() ? std::vector<double>{} : host(in_place ? dy : dx_apart), host(df), host(d_gain), host(d_bias)};
}

double loss_of(const Problem& p) { return dot(solve(exact_case(), p).y, p.dy); }

}  // namespace

BOOST_AUTO_TEST_CASE(rows_are_centred_scaled_and_moved) {
    for (const DeviceCase& on : device_cases()) {
        Problem p(1, 4);
        p.x = {1, 2, 3, 4}, p.f = {2, 0, -2, 0}, p.alpha = 0.5, p.gain = {1, 2, 0.5, -1}, p.bias = {0, 1, 0, 0.5};
        // z = (2, 2, 2, 4): mean 2.5, variance 0.75.
        const double s = 1 / std::sqrt(0.75);
        const Result r = solve(on, p);
        check_all(r.normalised, {-0.5 * s, -0.5 * s, -0.5 * s, 1.5 * s}, std::max(1e-11, on.tolerance(4)));
        check_all(r.y, {-0.5 * s, 1 - s, -0.25 * s, 0.5 - 1.5 * s}, std::max(1e-11, on.tolerance(4)));
        check_all(r.inv_std, {s}, std::max(1e-11, on.wide_tolerance(4)));
        p.centre = false;  // mean square 7
        check_all(solve(on, p).y, {2 / std::sqrt(7), 1 + 4 / std::sqrt(7), 1 / std::sqrt(7), 0.5 - 4 / std::sqrt(7)}, std::max(1e-11, on.tolerance(4)));
    }
}

BOOST_AUTO_TEST_CASE(sums_of_gain_and_bias_are_added_to_what_stands_there) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor dy = on.put({2, 2}, {1, 2, 3, 4}), normalised = on.put({2, 2}, {0.5, -1, 2, 1}), inv_std = on.put_wide({2}, {1, 1}), df = on.zeros({2, 2});
        const DeviceTensor d_gain = on.put_wide({2}, {10, 20}), d_bias = on.put_wide({2}, {30, 40});
        layer_norm_backward(on.stream(), {.dy = dy, .normalised = normalised, .inv_std = inv_std, .df = df, .d_gain = d_gain, .d_bias = d_bias});
        check_all(d_gain, {16.5, 22}, 0);
        check_all(d_bias, {34, 46}, 0);
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const bool with_x : {true, false})
        for (const bool with_gain : {true, false})
            for (const bool centre : {true, false})
                for (const double rate : {0.0, 0.3}) {
                    Problem p(3, 17, with_x, with_gain);
                    p.centre = centre, p.rate = rate;
                    const Result exact = solve(exact_case(), p);
                    const auto along = [&](std::vector<double> Problem::*which) {
                        return [&p, which](const std::vector<double>& v) {
                            Problem moved = p;
                            moved.*which = v;
                            return loss_of(moved);
                        };
                    };
                    BOOST_TEST(worst_difference(p.f, exact.df, along(&Problem::f)) < gradient_bound);
                    if (with_x) BOOST_TEST(worst_difference(p.x, exact.dx, along(&Problem::x)) < gradient_bound);
                    if (!with_gain) continue;
                    BOOST_TEST(worst_difference(p.gain, exact.d_gain, along(&Problem::gain)) < gradient_bound);
                    BOOST_TEST(worst_difference(p.bias, exact.d_bias, along(&Problem::bias)) < gradient_bound);
                }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64_also_in_place) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {2, 15, 16, 17, 33, 384})
            for (const bool centre : {true, false}) {
                Problem p(5, channels);
                p.centre = centre, p.rate = 0.1;
                for (auto* list : {&p.x, &p.f, &p.dy, &p.gain, &p.bias}) *list = rounded(*list, on.dtype);
                const Result got = solve(on, p), placed = solve(on, p, true), expected = solve(exact_case(), p);
                double inv_std = 1;
                for (const double r : expected.inv_std) inv_std = std::max(inv_std, r);
                // A standard deviation near 0, of two channels, carries the rounding of what it is a difference of.
                const double bound = inv_std * on.tolerance(channels);
                check_all(got.y, expected.y, bound);
                check_all(got.dx, expected.dx, inv_std * bound);
                check_all(got.df, expected.df, inv_std * bound);
                check_all(got.d_gain, expected.d_gain, 5 * bound);
                check_all(got.d_bias, expected.d_bias, on.tolerance(5));
                BOOST_TEST((placed.y == got.y && placed.normalised == got.normalised && placed.dx == got.dx && placed.df == got.df && placed.d_gain == got.d_gain));
            }
}

BOOST_AUTO_TEST_CASE(any_number_of_threads_gives_the_same_bits) {
    const int threads = thread_count();
    Problem p(200, 130);
    p.rate = 0.1;
    set_thread_count(1);
    const Result one = solve({Device::cpu, Dtype::f32}, p);
    set_thread_count(3);
    const Result three = solve({Device::cpu, Dtype::f32}, p);
    set_thread_count(threads);
    BOOST_TEST((one.y == three.y && one.dx == three.dx && one.d_gain == three.d_gain && one.d_bias == three.d_bias));
}

BOOST_AUTO_TEST_CASE(no_tokens_change_nothing_and_what_does_not_fit_is_refused) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor none = on.zeros({0, 3}), inv_std = on.zeros_wide({0}), d_gain = on.put_wide({3}, {1, 2, 3}), other = on.zeros({0, 3});
        layer_norm(on.stream(), {.f = none, .normalised = none, .y = other, .inv_std = inv_std});
        layer_norm_backward(on.stream(), {.dy = none, .normalised = none, .inv_std = inv_std, .df = other, .d_gain = d_gain});
        check_all(d_gain, {1, 2, 3}, 0);
    }
    const DeviceCase on = exact_case();
    const DeviceTensor f = on.zeros({2, 3}), y = on.zeros({2, 3}), two = on.zeros({2}), three = on.zeros({3});
    BOOST_CHECK_THROW(layer_norm(on.stream(), {.f = f, .gain = two, .normalised = f, .y = y, .inv_std = two}), Error);
    BOOST_CHECK_THROW(layer_norm(on.stream(), {.f = f, .gain = three, .normalised = f, .y = f, .inv_std = two}), Error);
    BOOST_CHECK_THROW(layer_norm(on.stream(), {.f = f, .normalised = f, .y = y, .inv_std = three}), Error);
    BOOST_CHECK_THROW(layer_norm_backward(on.stream(), {.dy = f, .normalised = f, .inv_std = two, .df = y, .d_gain = two}), Error);
}
