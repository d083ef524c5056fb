#include "kernels/activation.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Result {
    std::vector<double> x, y, dx;
};

Result solve(const DeviceCase& on, Shape shape, const std::vector<double>& values, const std::vector<double>& bias, const std::vector<double>& gradient, Activation activation) {
    const DeviceTensor x = on.put(shape, values), b = bias.empty() ? DeviceTensor() : on.put({shape[1]}, bias), dy = on.put(shape, gradient);
    const DeviceTensor y = activation == Activation::none ? DeviceTensor() : on.zeros(shape);
    bias_activation(on.stream(), {.bias = b, .x = x, .y = y, .activation = activation});
    if (activation == Activation::none) return {to_host(x), {}, {}};
    activation_backward(on.stream(), {.x = x, .dy = dy, .dx = dy, .activation = activation});
    return {to_host(x), to_host(y), to_host(dy)};
}

double gelu_of(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2)); }

}  // namespace

BOOST_AUTO_TEST_CASE(a_bias_comes_before_the_activation) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> x{1, -2, 0.5, 3, -1, 0}, bias{0.5, 1, -1}, dy{1, 2, 3, 4, 5, 6};
        check_all(solve(on, {2, 3}, x, bias, dy, Activation::none).x, {1.5, -1, -0.5, 3.5, 0, -1}, 0);
        const Result relu = solve(on, {2, 3}, x, bias, dy, Activation::relu);
        check_all(relu.x, {1.5, -1, -0.5, 3.5, 0, -1}, 0);
        check_all(relu.y, {1.5, 0, 0, 3.5, 0, 0}, 0);
        check_all(relu.dx, {1, 0, 0, 4, 0, 0}, 0);
        check_all(solve(on, {2, 3}, x, {}, dy, Activation::relu).y, {1, 0, 0.5, 3, 0, 0}, 0);
        std::vector<double> expected;
        for (const double v : relu.x) expected.push_back(gelu_of(v));
        check_all(solve(on, {2, 3}, x, bias, dy, Activation::gelu).y, expected, on.tolerance(1));
    }
}

BOOST_AUTO_TEST_CASE(gelu_is_right_from_end_to_end) {
    for (const DeviceCase& on : device_cases()) {
        std::vector<double> x, value, slope;
        for (int i = -400; i <= 400; ++i) x.push_back(i * 0.05);
        for (const double far : {-1e4, -100.0, -40.0, 40.0, 100.0, 1e4, 1e-6, -1e-6, 0.0}) x.push_back(far);
        x = rounded(x, on.dtype);
        for (const double v : x) value.push_back(gelu_of(v)), slope.push_back(0.5 * std::erfc(-v / std::sqrt(2)) + v * std::exp(-v * v / 2) / std::sqrt(2 * std::acos(-1.0)));
        const auto n = static_cast<std::int64_t>(x.size());
        const Result r = solve(on, {1, n}, x, {}, std::vector<double>(x.size(), 1), Activation::gelu);
        // In f32 the formula is good to 1.5e-7 for Phi, which x (here to 20) multiplies where Phi is not 0 or 1.
        const double bound = on.dtype == Dtype::f64 ? 1e-14 : std::max(on.tolerance(1), 1e-6);
        check_all(r.y, value, bound);
        check_all(r.dx, slope, bound);
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    const Shape shape{3, 17};
    const std::vector<double> x = numbers(51, 1), bias = numbers(17, 2), dy = numbers(51, 3);
    for (const Activation activation : {Activation::relu, Activation::gelu}) {
        const Result exact = solve(exact_case(), shape, x, bias, dy, activation);
        BOOST_TEST(worst_difference(x, exact.dx, [&](const std::vector<double>& v) { return dot(solve(exact_case(), shape, v, bias, dy, activation).y, dy); }) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(nan_stays_nan) {
    for (const DeviceCase& on : device_cases())
        for (const Activation activation : {Activation::relu, Activation::gelu}) {
            const Result r = solve(on, {1, 2}, {std::nan(""), 1}, {}, {1, 1}, activation);
            BOOST_TEST(std::isnan(r.y[0]));
            BOOST_TEST(!std::isnan(r.y[1]));
        }
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor x = on.zeros({2, 3}), y = on.zeros({2, 3}), two = on.zeros({2}), three = on.zeros({3});
    BOOST_CHECK_THROW(bias_activation(on.stream(), {.bias = two, .x = x}), Error);
    BOOST_CHECK_THROW(bias_activation(on.stream(), {.bias = three, .x = x, .y = y}), Error);
    BOOST_CHECK_THROW(bias_activation(on.stream(), {.bias = three, .x = x, .activation = Activation::gelu}), Error);
    BOOST_CHECK_THROW(activation_backward(on.stream(), {.x = x, .dy = y, .dx = y, .activation = Activation::none}), Error);
}
