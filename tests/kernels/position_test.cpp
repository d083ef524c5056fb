#include "kernels/position.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(rows_get_the_vector_of_their_position) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor table = on.put({3, 2}, {1, 2, 10, 20, 100, 200}), y = on.put({4, 2}, {1, 1, 2, 2, 3, 3, 4, 4}), position = on.put_list({0, 1, 2, 0});
        add_position(on.stream(), {.position = position, .table = table, .y = y});
        check_all(y, {2, 3, 12, 22, 103, 203, 5, 6}, 0);
    }
}

BOOST_AUTO_TEST_CASE(a_position_sums_over_the_sequences_that_have_it) {
    for (const DeviceCase& on : device_cases()) {
        // Sequences of 2, 0 and 3 tokens; the last token belongs to none.
        const DeviceTensor dy = on.put({6, 2}, {1, 2, 3, 4, 10, 20, 30, 40, 50, 60, 7, 7}), bounds = on.put_list({0, 2, 2, 5}), d_table = on.put_wide({4, 2}, {0, 0, 1, 1, 0, 0, 9, 9});
        add_position_backward(on.stream(), {.cu_seqlens = bounds, .dy = dy, .d_table = d_table});
        check_all(d_table, {11, 22, 34, 45, 50, 60, 9, 9}, 0);
    }
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor table = on.zeros({3, 2}), y = on.zeros({2, 3}), position = on.put_list({0, 1});
    BOOST_CHECK_THROW(add_position(on.stream(), {.position = position, .table = table, .y = y}), Error);
    BOOST_CHECK_THROW(add_position_backward(on.stream(), {.cu_seqlens = position, .dy = y, .d_table = table}), Error);
}
