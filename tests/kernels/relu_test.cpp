#include "kernels/relu.hpp"

#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <limits>

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(negative_numbers_become_zero_and_their_gradient_stops) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor x = on.put({5}, {-1, -0.0, 0, 2, 0.5}), y = on.zeros({5}), dy = on.put({5}, {1, 2, 3, 4, 5}), dx = on.zeros({5});
        Stream stream(on.device);
        relu(stream, {.x = x, .y = y});
        check_all(y, {0, 0, 0, 2, 0.5}, 0);
        relu_backward(stream, {.y = y, .dy = dy, .dx = dx});
        check_all(dx, {0, 0, 0, 4, 5}, 0);
    }
}

BOOST_AUTO_TEST_CASE(not_a_number_stays_visible) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor x = on.put({2}, {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()});
        Stream stream(on.device);
        relu(stream, {.x = x, .y = x});
        BOOST_TEST(std::isnan(to_host(x)[0]));
        BOOST_TEST(to_host(x)[1] == std::numeric_limits<double>::infinity());
    }
}

BOOST_AUTO_TEST_CASE(any_length_works_in_place) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t n : {0, 1, 15, 16, 17, (1 << 14) + 3}) {
            const std::vector<double> values = rounded(numbers(n, 1), on.dtype), slopes = rounded(numbers(n, 2), on.dtype);
            const DeviceTensor x = on.put({n}, values), dy = on.put({n}, slopes);
            Stream stream(on.device);
            relu(stream, {.x = x, .y = x});
            relu_backward(stream, {.y = x, .dy = dy, .dx = dy});
            const std::vector<double> y = to_host(x), dx = to_host(dy);
            std::int64_t wrong = 0;
            for (std::size_t i = 0; i < values.size(); ++i) wrong += y[i] != std::max(values[i], 0.0) || dx[i] != (values[i] > 0 ? slopes[i] : 0);
            BOOST_TEST(wrong == 0, wrong << " of " << n << " elements differ, " << on.name());
        }
}

BOOST_AUTO_TEST_CASE(gradient_agrees_with_central_differences) {
    const DeviceCase on = exact_case();
    std::vector<double> values = numbers(33, 1);
    for (double& v : values) v += v < 0 ? -0.01 : 0.01;  // differences must not reach over the kink
    const std::vector<double> weights = numbers(33, 2);
    const auto forward = [&](const std::vector<double>& v) {
        const DeviceTensor x = on.put({33}, v);
        Stream stream(on.device);
        relu(stream, {.x = x, .y = x});
        return to_host(x);
    };
    const DeviceTensor y = on.put({33}, forward(values)), dy = on.put({33}, weights);
    Stream stream(on.device);
    relu_backward(stream, {.y = y, .dy = dy, .dx = dy});
    BOOST_TEST(worst_difference(values, to_host(dy), [&](const auto& v) { return dot(forward(v), weights); }) < gradient_bound);
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor three = on.zeros({3}), four = on.zeros({4}), narrow(on.device, {3}, Dtype::f32);
    Stream stream(on.device);
    BOOST_CHECK_THROW(relu(stream, {.x = three, .y = four}), Error);
    BOOST_CHECK_THROW(relu(stream, {.x = three, .y = narrow}), Error);
    BOOST_CHECK_THROW(relu_backward(stream, {.y = three, .dy = four, .dx = four}), Error);
}
