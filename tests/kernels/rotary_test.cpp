#include "kernels/rotary.hpp"

#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <array>

using namespace rf;
using namespace rf::test;

namespace {

enum class Way { forward, backward };

DeviceTensor table_for(const DeviceCase& on, std::int64_t positions, std::int64_t channels) {
    const Dtype dtype = accumulator_of(on.dtype);
    const DeviceTensor host(Device::cpu, {positions, channels / 2, 2}, dtype);
    rotary_table(host);
    return to_device(on.device, {positions, channels / 2, 2}, dtype, to_host(host));
}

/// Turns qkv [T, 3, h, D].
std::vector<double> turn(const DeviceCase& on, const std::vector<double>& qkv, const std::vector<double>& positions, std::int64_t heads, std::int64_t channels,
                         Way way = Way::forward) {
    const DeviceTensor t = on.put({static_cast<std::int64_t>(positions.size()), 3, heads, channels}, qkv), position = on.put_list(positions);
    const DeviceTensor table = table_for(on, 600, channels);
    Stream stream(on.device);
    const Rotary args{.qkv = t, .position = position, .table = table};
    way == Way::forward ? rotary(stream, args) : rotary_backward(stream, args);
    return to_host(t);
}

/// One head of four channels at position m: angles m and m / 100.
std::vector<double> turn_one(const DeviceCase& on, std::vector<double> x, double m, Way way = Way::forward) {
    x.resize(12);
    std::vector<double> out = turn(on, x, {m}, 1, 4, way);
    out.resize(4);
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(pairs_are_interleaved) {
    for (const DeviceCase& on : device_cases()) {
        const double bound = std::max(1e-10, on.tolerance(2));  // ten digits given
        const std::vector<double> one = turn_one(on, {1, 2, 3, 4}, 1);
        check_all(one, {-1.1426396637, 1.9220755965, 2.9598506679, 4.0297995017}, bound);
        check_all(turn_one(on, {1, 2, 3, 4}, 10), {0.2489706927, -2.222164169, 2.5856788292, 4.2795169111}, bound);
        const double half_split[] = {-1.9841106486, 1.9599006675, 2.4623779024, 4.0197996683};  // the wrong convention
        BOOST_TEST(std::abs(one[0] - half_split[0]) > 0.8);
        BOOST_TEST(std::abs(one[2] - half_split[2]) > 0.4);
    }
}

BOOST_AUTO_TEST_CASE(products_depend_on_the_distance_only) {
    for (const DeviceCase& on : device_cases()) {
        const double bound = std::max(1e-11, on.tolerance(4));
        const std::vector<double> q{1, 0, .5, -1}, k{.25, 2, -1, .5};
        check_close(dot(turn_one(on, q, 3), turn_one(on, k, 1)), 0.699759137828, bound);
        check_close(dot(turn_one(on, q, 5), turn_one(on, k, 3)), 0.699759137828, bound);
        check_close(dot(turn_one(on, q, 1), turn_one(on, k, 3)), -2.907432569435, bound);
    }
}

BOOST_AUTO_TEST_CASE(angles_of_64_channels_have_the_published_frequencies) {
    const std::vector<double> table = to_host(table_for(exact_case(), 2, 64));
    check_close(std::atan2(table[64 + 3], table[64 + 2]), 0.7498942093, 1e-10);
    check_close(std::atan2(table[64 + 63], table[64 + 62]) / 1.333521432163e-4, 1, 1e-11);
}

BOOST_AUTO_TEST_CASE(the_first_position_and_all_values_stay_as_they_are) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> qkv = rounded(numbers(2 * 3 * 2 * 6, 1), on.dtype), turned = turn(on, qkv, {0, 5}, 2, 6);
        int changed = 0;
        for (std::size_t i = 0; i < qkv.size(); ++i) {
            const bool value = i / 12 % 3 == 2, first = i < 36;
            changed += turned[i] != qkv[i];
            if (value || first) BOOST_TEST(turned[i] == qkv[i], "element " << i << " of " << on.name());
        }
        BOOST_TEST(changed >= 8);  // both heads' fast channels; bf16 does not see the slowest turn
    }
}

BOOST_AUTO_TEST_CASE(backward_turns_back) {
    for (const DeviceCase& on : device_cases())
        check_all(turn_one(on, turn_one(on, {1, 2, 3, 4}, 7), 7, Way::backward), {1, 2, 3, 4}, on.tolerance(2));
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const std::int64_t channels : {2, 18}) {
        const std::vector<double> x = numbers(3 * 3 * 2 * channels, 1), weights = numbers(3 * 3 * 2 * channels, 2), positions{0, 1, 511};
        const auto loss = [&](const std::vector<double>& v) { return dot(turn(exact_case(), v, positions, 2, channels), weights); };
        BOOST_TEST(worst_difference(x, turn(exact_case(), weights, positions, 2, channels, Way::backward), loss) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {2, 14, 16, 18, 64}) {
            const std::vector<double> x = rounded(numbers(2 * 3 * 3 * channels, 1), on.dtype), positions{1, 599};
            for (const Way way : {Way::forward, Way::backward})
                check_all(turn(on, x, positions, 3, channels, way), turn(exact_case(), x, positions, 3, channels, way), on.tolerance(2));
        }
}

BOOST_AUTO_TEST_CASE(no_tokens_and_wrong_shapes) {
    const DeviceCase on = exact_case();
    BOOST_TEST(turn(on, {}, {}, 2, 4).empty());
    const DeviceTensor qkv = on.zeros({2, 3, 1, 4}), position = on.put_list({0, 1}), narrow = table_for(on, 2, 2), short_list = on.put_list({0});
    const DeviceTensor table = table_for(on, 2, 4);
    Stream stream(on.device);
    BOOST_CHECK_THROW(rotary(stream, {.qkv = qkv, .position = position, .table = narrow}), Error);
    BOOST_CHECK_THROW(rotary(stream, {.qkv = qkv, .position = short_list, .table = table}), Error);
}
