#include "kernels/gather.hpp"

#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

/// Rows 1, 2 and 4 of five tokens.
const std::vector<double> rows{1, 2, 4};

struct Result {
    std::vector<double> y, dx;
};

Result solve(const DeviceCase& on, std::int64_t channels, const std::vector<double>& x, const std::vector<double>& dy,
             const std::vector<double>& taken = rows) {
    const auto m = static_cast<std::int64_t>(taken.size());
    const DeviceTensor input = on.put({5, channels}, x), which = on.put_list(taken), slopes = on.put({m, channels}, dy);
    const DeviceTensor y = on.put({m, channels}, numbers(m * channels, 8));
    const DeviceTensor dx = on.put({5, channels}, numbers(5 * channels, 9));
    Stream& stream = on.stream();
    gather(stream, {.x = input, .rows = which, .y = y});
    gather_backward(stream, {.dy = slopes, .rows = which, .dx = dx});
    return {to_host(y), to_host(dx)};
}

}  // namespace

BOOST_AUTO_TEST_CASE(rows_are_taken_and_given_back) {
    for (const DeviceCase& on : device_cases()) {
        const Result r = solve(on, 2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 5, 6});
        check_all(r.y, {2, 3, 4, 5, 8, 9}, 0);
        check_all(r.dx, {0, 0, 1, 2, 3, 4, 0, 0, 5, 6}, 0);
    }
}

BOOST_AUTO_TEST_CASE(negative_rows_are_zero_and_give_nothing_back) {
    for (const DeviceCase& on : device_cases()) {
        const std::int64_t c = 17;
        const std::vector<double> x = rounded(numbers(5 * c, 1), on.dtype), dy = rounded(numbers(3 * c, 2), on.dtype);
        const Result exact = solve(on, c, x, dy);
        // The same with two more rows, whose gradient must go nowhere.
        std::vector<double> padded = rows, slopes = dy;
        padded.insert(padded.end(), {-1, -1}), slopes.insert(slopes.end(), static_cast<std::size_t>(2 * c), 7.0);
        const Result more = solve(on, c, x, slopes, padded);
        std::vector<double> y = exact.y;
        y.insert(y.end(), static_cast<std::size_t>(2 * c), 0.0);
        check_all(more.y, y, 0);
        check_all(more.dx, exact.dx, 0);
        // Nothing but padding.
        const Result none = solve(on, c, x, {slopes.end() - 2 * c, slopes.end()}, {-1, -1});
        check_all(none.y, std::vector<double>(static_cast<std::size_t>(2 * c), 0), 0);
        check_all(none.dx, std::vector<double>(static_cast<std::size_t>(5 * c), 0), 0);
    }
}

BOOST_AUTO_TEST_CASE(without_rows_the_gradient_is_zero) {
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor x = on.put({2, 3}, numbers(6, 1)), none = on.put_list({}), y = on.zeros({0, 3}), dx = on.put({2, 3}, numbers(6, 2));
        Stream& stream = on.stream();
        gather(stream, {.x = x, .rows = none, .y = y});
        gather_backward(stream, {.dy = y, .rows = none, .dx = dx});
        check_all(dx, {0, 0, 0, 0, 0, 0}, 0);
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    const std::vector<double> x = numbers(5 * 17, 1), dy = numbers(3 * 17, 2);
    const auto loss = [&](const std::vector<double>& v) { return dot(solve(exact_case(), 17, v, dy).y, dy); };
    BOOST_TEST(worst_difference(x, solve(exact_case(), 17, x, dy).dx, loss) < gradient_bound);
}

BOOST_AUTO_TEST_CASE(lower_precision_moves_the_same_rows) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {1, 15, 16, 17, 129}) {
            const std::vector<double> x = rounded(numbers(5 * channels, 1), on.dtype), dy = rounded(numbers(3 * channels, 2), on.dtype);
            const Result got = solve(on, channels, x, dy), expected = solve(exact_case(), channels, x, dy);
            check_all(got.y, expected.y, 0);
            check_all(got.dx, expected.dx, 0);
        }
}

BOOST_AUTO_TEST_CASE(shapes_that_do_not_fit_are_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor x = on.zeros({5, 2}), which = on.put_list(rows), y = on.zeros({2, 2});
    Stream& stream = on.stream();
    BOOST_CHECK_THROW(gather(stream, {.x = x, .rows = which, .y = y}), Error);
}
