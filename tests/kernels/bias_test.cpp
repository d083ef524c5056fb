#include "kernels/bias.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(a_bias_is_added_to_every_row) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor bias = on.put({3}, {1, -2, 0.5}), y = on.put_wide({2, 3}, {1, 2, 3, 4, 5, 6});
        add_bias(on.stream(), {.bias = bias, .y = y});
        check_all(y, {2, 0, 3.5, 5, 3, 6.5}, 0);
    }
}

BOOST_AUTO_TEST_CASE(its_gradient_is_the_sum_of_rows_added_to_what_stands_there) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor dy = on.put({2, 3}, {1, 2, 3, 4, 5, 6}), d_bias = on.put_wide({3}, {10, 20, 30});
        add_bias_backward(on.stream(), {.dy = dy, .d_bias = d_bias});
        check_all(d_bias, {15, 27, 39}, 0);
        const std::vector<double> many = rounded(numbers(1000 * 40, 1), on.dtype);
        const DeviceTensor rows = on.put({1000, 40}, many), sums = on.zeros_wide({40});
        add_bias_backward(on.stream(), {.dy = rows, .d_bias = sums});
        std::vector<double> expected(40, 0);
        for (std::size_t i = 0; i < many.size(); ++i) expected[i % 40] += many[i];
        check_all(sums, expected, on.wide_tolerance(1000));
    }
}

BOOST_AUTO_TEST_CASE(no_rows_change_nothing) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor bias = on.put({3}, {1, -2, 0.5}), none = on.zeros_wide({0, 3}), d_none = on.zeros({0, 3}), d_bias = on.put_wide({3}, {1, 2, 3});
        add_bias(on.stream(), {.bias = bias, .y = none});
        add_bias_backward(on.stream(), {.dy = d_none, .d_bias = d_bias});
        check_all(d_bias, {1, 2, 3}, 0);
    }
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor bias = on.zeros({2}), y = on.zeros({2, 3});
    BOOST_CHECK_THROW(add_bias(on.stream(), {.bias = bias, .y = y}), Error);
    BOOST_CHECK_THROW(add_bias_backward(on.stream(), {.dy = y, .d_bias = bias}), Error);
}
