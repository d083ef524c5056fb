#include "kernels/elementwise.hpp"

#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

#include <limits>

using namespace rf;
using namespace rf::test;

namespace {
// Nothing, around the lanes of a vector, and just past the run that one thread takes.
const std::int64_t lengths[] = {0, 1, 15, 16, 17, (1 << 14) + 3};
}  // namespace

BOOST_AUTO_TEST_CASE(each_sum_is_one_rounded_addition) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t n : lengths) {
            const std::vector<double> a = rounded(numbers(n, 1), on.dtype), b = rounded(numbers(n, 2), on.dtype);
            std::vector<double> sum(a.size());
            for (std::size_t i = 0; i < a.size(); ++i) sum[i] = a[i] + b[i];
            const DeviceTensor x = on.put({n}, a), y = on.put({n}, b);
            Stream& stream = on.stream();
            add(stream, {.x = x, .y = y});
            BOOST_TEST((to_host(y) == rounded(sum, on.dtype)), on.name() << ", " << n << " elements");
        }
}

BOOST_AUTO_TEST_CASE(a_scaled_sum_is_divided_by_its_divisor_and_nothing_by_zero) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t n : lengths) {
            const std::vector<double> a = rounded(numbers(n, 1), on.dtype), b = rounded(numbers(n, 2), on.dtype);
            std::vector<double> sum(a.size());
            for (std::size_t i = 0; i < a.size(); ++i) sum[i] = b[i] + 0.75 * a[i];
            const DeviceTensor x = on.put({n}, a), y = on.put({n}, b), norm = to_device(on.device, {1}, Dtype::f64, {4}), zero = to_device(on.device, {1}, Dtype::f64, {0});
            add_scaled(on.stream(), {.x = x, .y = y, .factor = 3, .divisor = norm.tensor()});
            check_all(y, sum, on.tolerance(1));
            const std::vector<double> before = to_host(y);
            add_scaled(on.stream(), {.x = x, .y = y, .factor = 3, .divisor = zero.tensor()});
            BOOST_TEST((to_host(y) == before));
        }
}

BOOST_AUTO_TEST_CASE(casts_round_to_nearest_even) {
    for (const Device device : devices()) {
        // bf16 has 8 significant bits: steps of 1/128 from 1.
        const double step = 1.0 / 128, inf = std::numeric_limits<double>::infinity();
        const DeviceTensor x = to_device(device, {10}, Dtype::f32, {1 + step / 2, 1 + 3 * step / 2, 1 + 0.51 * step, -1 - step / 2, 3.4e38, inf, -inf, -0.0, 1e-40, 0x1p-140});
        const DeviceTensor y(device, {10}, Dtype::bf16), back(device, {10}, Dtype::f32);
        Stream& stream = stream_of(device);
        cast(stream, {.x = x, .y = y});
        BOOST_TEST((to_host(y) == std::vector<double>{1, 1 + 2 * step, 1 + step, -1, inf, inf, -inf, 0, std::ldexp(1.0, -133), 0}));
        cast(stream, {.x = y, .y = back});
        BOOST_TEST((to_host(back) == to_host(y)));
        BOOST_TEST(std::signbit(to_host(back)[7]));
    }
}

BOOST_AUTO_TEST_CASE(casts_agree_with_the_number_types) {
    for (const Device device : devices())
        for (const std::int64_t n : lengths) {
            const std::vector<double> values = numbers(n, 1);
            const Dtype pairs[][2] = {{Dtype::f32, Dtype::bf16}, {Dtype::bf16, Dtype::f32}, {Dtype::f32, Dtype::f64}, {Dtype::f64, Dtype::f32},
                                      {Dtype::f32, Dtype::f32}, {Dtype::bf16, Dtype::bf16}, {Dtype::f64, Dtype::f64}};
            for (const auto& [from, to] : pairs) {
                if (device != Device::cpu && (from == Dtype::f64 || to == Dtype::f64)) continue;
                const DeviceTensor x = to_device(device, {n}, from, values), y(device, {n}, to);
                Stream& stream = stream_of(device);
                cast(stream, {.x = x, .y = y});
                BOOST_TEST((to_host(y) == rounded(rounded(values, from), to)), name_of(from) << " to " << name_of(to) << ", " << n << " elements");
            }
        }
}

BOOST_AUTO_TEST_CASE(not_a_number_survives_a_cast) {
    for (const Device device : devices()) {
        const DeviceTensor x = to_device(device, {1}, Dtype::f32, {std::numeric_limits<double>::quiet_NaN()}), y(device, {1}, Dtype::bf16);
        Stream& stream = stream_of(device);
        cast(stream, {.x = x, .y = y});
        BOOST_TEST(std::isnan(to_host(y)[0]));
    }
}

BOOST_AUTO_TEST_CASE(filling_leaves_zeros) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t n : lengths) {
            const DeviceTensor y = on.put({n}, numbers(n, 1));
            Stream& stream = on.stream();
            fill_zero(stream, y);
            BOOST_TEST((to_host(y) == std::vector<double>(static_cast<std::size_t>(n), 0)));
        }
}

BOOST_AUTO_TEST_CASE(copies_take_bytes_whatever_their_types) {
    for (const Device device : devices())
        for (const std::int64_t n : lengths) {
            const std::vector<double> values = numbers(n, 1);
            const DeviceTensor from = to_device(device, {n}, Dtype::f32, values), middle(device, {4, n}, Dtype::u8), to(device, {n}, Dtype::f32);
            copy(stream_of(device), from, middle);
            copy(stream_of(device), middle, to);
            BOOST_TEST((to_host(to) == rounded(values, Dtype::f32)));
        }
}

BOOST_AUTO_TEST_CASE(what_does_not_fit_is_refused) {
    const Device device = Device::cpu;
    const DeviceTensor three(device, {3}, Dtype::f32), four(device, {4}, Dtype::f32), f64(device, {3}, Dtype::f64), bf16(device, {3}, Dtype::bf16);
    Stream& stream = stream_of(device);
    BOOST_CHECK_THROW(add(stream, {.x = three, .y = four}), Error);
    BOOST_CHECK_THROW(add(stream, {.x = three, .y = f64}), Error);
    BOOST_CHECK_THROW(cast(stream, {.x = three, .y = four}), Error);
    BOOST_CHECK_THROW(copy(stream, three, bf16), Error);
    BOOST_CHECK_THROW(cast(stream, {.x = bf16, .y = f64}), Error);  // no such conversion
}
