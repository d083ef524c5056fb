#include "optim/optimizer.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>

using namespace rf;

namespace {

/// One tensor of two numbers.
struct Pair {
    ParamLayout layout;
    std::unique_ptr<Communicator> self = make_self_communicator();
    ParallelGrid grid{*self, 1};
    Pair() { layout.add({.name = "p", .shape = {2}}); }
};

/// What an update left in the optimizer's control.
struct Result {
    double gradient_norm = 0;
    bool applied = false;
    std::string not_finite;  ///< tensor, if any
};

Result step(Optimizer& optimizer, const ParamState& state, Stream& stream, const Tensor& gradient, std::int64_t update, double lr) {
    const Optimizer::Numbers numbers = optimizer.numbers(update, lr);
    double* control = optimizer.control().as<double>();
    control[control_lr] = numbers.lr, control[control_correction1] = numbers.correction1, control[control_correction2] = numbers.correction2;
    optimizer.step(stream, gradient);
    const double group = control[control_not_finite];
    return {control[control_gradient_norm], control[control_apply] != 0, group < 0 ? "" : state.layout().group_name(static_cast<std::int32_t>(group))};
}

}  // namespace

BOOST_AUTO_TEST_CASE(lamb_takes_the_published_steps) {
    Pair p;
    const ParamState state(p.layout, p.grid, Device::cpu, Dtype::f64, true);
    Stream stream;
    Optimizer optimizer({.lr = 0.01}, state, p.grid, stream);
    double* w = state.master().as<double>();
    w[0] = 3, w[1] = 4;
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    gradient[0] = .1, gradient[1] = -.2;
    const Tensor g = view(gradient.data(), {state.shard_size()});
    const auto first = step(optimizer, state, stream, g, 1, 0.01);
    BOOST_TEST(std::abs(first.gradient_norm - std::sqrt(.05)) < 1e-15);
    BOOST_TEST(std::abs(w[0] - 2.964257601) < 5e-10);
    BOOST_TEST(std::abs(w[1] - 4.0349639945) < 5e-10);
    step(optimizer, state, stream, g, 2, 0.01);
    BOOST_TEST(std::abs(w[0] - 2.9285655933) < 5e-10);
    BOOST_TEST(std::abs(w[1] - 4.0700760486) < 5e-10);
}

BOOST_AUTO_TEST_CASE(a_zero_gradient_decays_by_the_whole_rate_unless_skipped) {
    for (const bool skip : {false, true}) {
        Pair p;
        const ParamState state(p.layout, p.grid, Device::cpu, Dtype::f64, true);
        Stream stream;
        Optimizer optimizer({.lr = 0.01, .skip_zero_gradient = skip}, state, p.grid, stream);
        double* w = state.master().as<double>();
        w[0] = 3, w[1] = 4;
        std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
        step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
        BOOST_TEST(std::abs(w[0] - (skip ? 3 : 2.97)) < 1e-12);
        BOOST_TEST(std::abs(w[1] - (skip ? 4 : 3.96)) < 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(a_gradient_that_is_not_finite_is_named_and_not_applied) {
    Pair p;
    const ParamState state(p.layout, p.grid, Device::cpu, Dtype::f32, true);
    Stream stream;
    Optimizer optimizer({}, state, p.grid, stream);
    std::vector<float> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    gradient[1] = NAN;
    const auto result = step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
    BOOST_TEST(result.not_finite == "p");
    BOOST_TEST(!result.applied);
    for (const Tensor& t : {state.master(), state.m(), state.v()})
        for (std::int64_t i = 0; i < t.count(); ++i) BOOST_TEST(t.as<float>()[i] == 0);
    gradient[1] = 1;  // nor is one that was under way when it was found
    const auto next = step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
    BOOST_TEST(next.not_finite == "");
    BOOST_TEST(!next.applied);
    BOOST_TEST(state.master().as<float>()[1] == 0);
}

BOOST_AUTO_TEST_CASE(adamw_takes_the_steps_of_its_formula) {
    Pair p;
    const ParamState state(p.layout, p.grid, Device::cpu, Dtype::f64, true);
    Stream stream;
    Optimizer optimizer({.name = "adamw", .lr = 0.01}, state, p.grid, stream);
    double* w = state.master().as<double>();
    w[0] = 3, w[1] = 4;
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    // A constant gradient keeps both corrected moments at g and g^2: every step is lr (g / (|g| + epsilon) + decay w).
    double expected[] = {3, 4};
    gradient[0] = .1, gradient[1] = -.2;
    for (int t = 1; t <= 3; ++t) {
        step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), t, 0.01);
        for (int i = 0; i < 2; ++i) {
            const double g = gradient[static_cast<std::size_t>(i)];
            expected[i] -= 0.01 * (g / (std::abs(g) + 1e-6) + 0.01 * expected[i]);
            BOOST_TEST(std::abs(w[i] - expected[i]) < 1e-14);  // 1 - 0.999^t carries about 1e-13 of itself, times lr / 2
        }
    }
    // A second gradient, by hand: m = 0.9 m + 0.1 g, v = 0.999 v + 0.001 g^2 from the sums of the first three.
    gradient[0] = -.3;
    step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 4, 0.01);
    const double m = (1 - std::pow(0.9, 3)) * .1 * 0.9 + 0.1 * -.3, v = (1 - std::pow(0.999, 3)) * .01 * 0.999 + 0.001 * .09;
    const double u = m / (1 - std::pow(0.9, 4)) / (std::sqrt(v / (1 - std::pow(0.999, 4))) + 1e-6);
    BOOST_TEST(std::abs(w[0] - (expected[0] - 0.01 * (u + 0.01 * expected[0]))) < 1e-14);
}

BOOST_AUTO_TEST_CASE(adafactor_takes_the_published_steps) {
    ParamLayout layout;
    layout.add({.name = "p", .shape = {3}});
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    const ParamState state(layout, grid, Device::cpu, Dtype::f64, true);
    Stream stream;
    Optimizer optimizer({.name = "adafactor", .lr = 5e-4}, state, grid, stream);
    double* w = state.master().as<double>();
    w[0] = 3, w[1] = 4, w[2] = 0;
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    const double gradients[][3] = {{.1, -.2, .05}, {.3, .1, -.05}};
    const double m[][3] = {{.1, -.1, .1}, {0.2158331459, -0.0242510465, -0.0092123707}};
    const double p[][3] = {{2.9998556624, 4.0001443376, -0.0001443376}, {2.9995441323, 4.0001793411, -0.0001310406}};
    for (int t = 0; t < 2; ++t) {
        std::copy_n(gradients[t], 3, gradient.begin());
        step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), t + 1, 5e-4);
        for (int i = 0; i < 3; ++i) {
            BOOST_TEST(std::abs(state.m().as<double>()[i] - m[t][i]) < 5e-10);  // ten digits given
            BOOST_TEST(std::abs(w[i] - p[t][i]) < 5e-10);
        }
    }
    // Nothing of a tensor moves whose gradient is zero: not even along m.
    std::fill_n(gradient.begin(), 3, 0);
    const std::vector<double> before(w, w + 3);
    step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 3, 5e-4);
    BOOST_TEST(std::vector<double>(w, w + 3) == before);
    BOOST_TEST(std::abs(state.m().as<double>()[0] - m[1][0]) < 5e-10);
}

BOOST_AUTO_TEST_CASE(adafactor_scales_by_the_root_mean_square_of_each_tensor) {
    ParamLayout layout;
    layout.add({.name = "qk", .shape = {2, 3}, .tensors = 2});
    layout.add({.name = "p", .shape = {5000}});
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    const ParamState state(layout, grid, Device::cpu, Dtype::f64, true);
    Stream stream;
    Optimizer optimizer({.name = "adafactor", .lr = 5e-4}, state, grid, stream);
    double* w = state.master().as<double>();
    const std::int64_t p = layout.entries()[1].offset;
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    for (int i = 0; i < 6; ++i) w[i] = i < 3 ? 2 : -8, gradient[static_cast<std::size_t>(i)] = 0.5;
    for (int i = 0; i < 5000; ++i) gradient[static_cast<std::size_t>(p + i)] = i % 2 ? 1 : -1;  // weights 0: the least scale counts
    step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 5e-4);
    // v = g^2, so u = ±1 and m = ±0.1.
    BOOST_TEST(std::abs(w[0] - (2 - 5e-4 * 2 * 0.1)) < 1e-15);
    BOOST_TEST(std::abs(w[3] - (-8 - 5e-4 * 8 * 0.1)) < 1e-14);
    BOOST_TEST(std::abs(w[p] - 5e-4 * 1e-3 * 0.1) < 1e-20);
    BOOST_TEST(std::abs(w[p + 4999] + 5e-4 * 1e-3 * 0.1) < 1e-20);
    // A gradient three times as large: v = (1 - b) + 9 b with b = 2^-0.8, u = 3 / sqrt(v) > 1 everywhere, so it is cut to 1.
    for (int i = 0; i < 5000; ++i) gradient[static_cast<std::size_t>(p + i)] *= 3;
    step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 2, 5e-4);
    BOOST_TEST(std::abs(state.m().as<double>()[p] + (0.9 * 0.1 + 0.1)) < 1e-14);
}

BOOST_AUTO_TEST_CASE(a_trust_ratio_belongs_to_one_tensor) {
    ParamLayout layout;
    layout.add({.name = "qk", .shape = {2, 2}, .tensors = 2});
    layout.add({.name = "p", .shape = {2}});
    const auto self = make_self_communicator();
    ParallelGrid grid(*self, 1);
    const ParamState state(layout, grid, Device::cpu, Dtype::f64, true);
    Stream stream;
    Optimizer optimizer({}, state, grid, stream);
    double* w = state.master().as<double>();
    std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
    // Three times the published pair, each scaled by its own power of two: the ratio undoes the scale of the weights.
    const std::int64_t at[] = {0, 2, layout.entries()[1].offset};
    for (int i = 0; i < 3; ++i) {
        const double scale = std::ldexp(1.0, i);
        w[at[i]] = 3 * scale, w[at[i] + 1] = 4 * scale;
        gradient[static_cast<std::size_t>(at[i])] = .1, gradient[static_cast<std::size_t>(at[i]) + 1] = -.2;
    }
    step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
    BOOST_TEST(std::abs(w[0] - 2.964257601) < 5e-10);
    for (int i = 1; i < 3; ++i) {
        // u = m / (sqrt(v) + 1e-6) + 0.01 w with m = 0.1 g and sqrt(v) = sqrt(0.001) |g|
        const double scale = std::ldexp(1.0, i), root = std::sqrt(0.001);
        const double u[] = {.01 / (root * .1 + 1e-6) + .03 * scale, -.02 / (root * .2 + 1e-6) + .04 * scale};
        const double rate = 0.01 * 5 * scale / std::hypot(u[0], u[1]);
        BOOST_TEST(std::abs(w[at[i]] - (3 * scale - rate * u[0])) < 1e-12);
        BOOST_TEST(std::abs(w[at[i] + 1] - (4 * scale - rate * u[1])) < 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(clipping_scales_the_gradient_to_the_norm) {
    double moments[2];
    for (const double factor : {1.0, 10.0}) {
        Pair p;
        const ParamState state(p.layout, p.grid, Device::cpu, Dtype::f64, true);
        Stream stream;
        Optimizer optimizer({.max_gradient_norm = 5}, state, p.grid, stream);
        state.master().as<double>()[0] = 1;
        std::vector<double> gradient(static_cast<std::size_t>(state.shard_size()), 0);
        gradient[0] = 3 * factor, gradient[1] = 4 * factor;
        const auto result = step(optimizer, state, stream, view(gradient.data(), {state.shard_size()}), 1, 0.01);
        BOOST_TEST(std::abs(result.gradient_norm - 5 * factor) < 1e-13);  // reported as it was
        moments[factor > 1] = state.m().as<double>()[0];
    }
    BOOST_TEST(std::abs(moments[0] - 0.3) < 1e-15);
    BOOST_TEST(std::abs(moments[1] - 0.3) < 1e-15);
}
