/// The rotary table, and the turning of attention's queries and keys by it.

#include "kernels/rotary.hpp"

#include "kernels/attention.hpp"
#include "kernels/dispatch.hpp"
#include "tests/kernels/gradient_check.hpp"
#include "tests/kernels/rotary_table.hpp"

using namespace rf;
using namespace rf::test;

namespace {

enum class Way { forward, backward };

/// Rows [positions, heads, D] turned by the row function that attention uses on the CPU.
std::vector<double> turn_rows(Dtype dtype, const std::vector<double>& x, const std::vector<double>& positions, std::int64_t heads, std::int64_t channels,
                              Way way = Way::forward) {
    const DeviceCase on{Device::cpu, dtype};
    const DeviceTensor rows = on.put({static_cast<std::int64_t>(positions.size()), heads, channels}, x), table = table_for(on, 600, channels);
    const Tensor x_view = rows, table_view = table;
    dispatch(dtype, [&](auto type) {
        using T = decltype(type);
        using R = simd::Real<T>;
        for (std::size_t t = 0; t < positions.size(); ++t)
            for (std::int64_t h = 0; h < heads; ++h)
                rows_of<T>().rotate(raw<T>(x_view) + (static_cast<std::int64_t>(t) * heads + h) * channels,
                                    raw<R>(table_view) + static_cast<std::int64_t>(positions[t]) * channels, channels, way == Way::forward ? R{1} : R{-1});
    });
    return to_host(rows);
}

/// A sequence of one head and four channels; attention shows the products of its turned queries and keys.
struct Sequence {
    std::vector<double> qkv;
    explicit Sequence(std::int64_t length) : qkv(static_cast<std::size_t>(length * 12), 0) {}
    std::int64_t length() const { return static_cast<std::int64_t>(qkv.size()) / 12; }
    Sequence& set(std::int64_t position, int part, const std::vector<double>& x) {
        std::copy(x.begin(), x.end(), qkv.begin() + position * 12 + part * 4);
        return *this;
    }
    /// <turned q at `query`, turned k at `key`>: the key's probability is seen through a value of its own, and exp(score - log_sum).
    double product(const DeviceCase& on, std::int64_t query, std::int64_t key) const {
        Sequence seen = *this;
        seen.set(key, 2, {1, 0, 0, 0});
        const std::int64_t n = length();
        const DeviceTensor x = on.put({n, 3, 1, 4}, seen.qkv), table = table_for(on, 16, 4), bounds = on.put_list({0, static_cast<double>(n)});
        const DeviceTensor context = on.zeros({n, 1, 4}), log_sum = on.zeros_wide({1, n});
        attention(on.stream(), {.qkv = x, .rotary = table, .cu_seqlens = bounds, .context = context, .log_sum = log_sum});
        return std::log(to_host(context)[static_cast<std::size_t>(query * 4)]) + to_host(log_sum)[static_cast<std::size_t>(query)];
    }
};

/// x as a query at position m, turned: its products with the unit vectors as keys at position 0, which nothing turns.
std::vector<double> turned_query(const DeviceCase& on, const std::vector<double>& x, std::int64_t m) {
    std::vector<double> out;
    for (std::size_t c = 0; c < 4; ++c) {
        std::vector<double> unit(4, 0);
        unit[c] = 1;
        out.push_back(Sequence(m + 1).set(m, 0, x).set(0, 1, unit).product(on, m, 0));
    }
    return out;
}

const std::vector<double> at_1{-1.1426396637, 1.9220755965, 2.9598506679, 4.0297995017}, at_10{0.2489706927, -2.222164169, 2.5856788292, 4.2795169111};
const Dtype dtypes[] = {Dtype::f32, Dtype::bf16, Dtype::f64};

}  // namespace

BOOST_AUTO_TEST_CASE(pairs_are_interleaved) {
    const double half_split[] = {-1.9841106486, 1.9599006675, 2.4623779024, 4.0197996683};  // the wrong convention
    const auto check = [&](const std::vector<double>& one, const std::vector<double>& ten, double bound) {
        check_all(one, at_1, bound);
        check_all(ten, at_10, bound);
        BOOST_TEST(std::abs(one[0] - half_split[0]) > 0.8);
        BOOST_TEST(std::abs(one[2] - half_split[2]) > 0.4);
    };
    for (const Dtype dtype : dtypes) {
        const double bound = std::max(1e-10, tolerance(dtype, 2));  // ten digits given
        check(turn_rows(dtype, {1, 2, 3, 4}, {1}, 1, 4), turn_rows(dtype, {1, 2, 3, 4}, {10}, 1, 4), bound);
    }
    for (const DeviceCase& on : device_cases())
        check(turned_query(on, {1, 2, 3, 4}, 1), turned_query(on, {1, 2, 3, 4}, 10), std::max(1e-10, on.tolerance(4)));
}

BOOST_AUTO_TEST_CASE(products_depend_on_the_distance_only) {
    const std::vector<double> q{1, 0, .5, -1}, k{.25, 2, -1, .5};
    for (const Dtype dtype : dtypes) {
        const double bound = std::max(1e-11, tolerance(dtype, 4));
        const auto product = [&](double m, double n) { return dot(turn_rows(dtype, q, {m}, 1, 4), turn_rows(dtype, k, {n}, 1, 4)); };
        check_close(product(3, 1), 0.699759137828, bound);
        check_close(product(5, 3), 0.699759137828, bound);
        check_close(product(1, 3), -2.907432569435, bound);
    }
    for (const DeviceCase& on : device_cases()) {
        const double bound = std::max(1e-11, on.tolerance(4));
        const auto product = [&](std::int64_t m, std::int64_t n) { return Sequence(6).set(m, 0, q).set(n, 1, k).product(on, m, n); };
        check_close(product(3, 1), 0.699759137828, bound);
        check_close(product(5, 3), 0.699759137828, bound);
        check_close(product(1, 3), -2.907432569435, bound);
    }
}

BOOST_AUTO_TEST_CASE(angles_of_64_channels_have_the_published_frequencies) {
    const std::vector<double> table = to_host(table_for(exact_case(), 2, 64));
    check_close(std::atan2(table[64 + 3], table[64 + 2]), 0.7498942093, 1e-10);
    check_close(std::atan2(table[64 + 63], table[64 + 62]) / 1.333521432163e-4, 1, 1e-11);
}

BOOST_AUTO_TEST_CASE(the_first_position_and_all_values_stay_as_they_are) {
    for (const Dtype dtype : dtypes) {
        const std::vector<double> x = rounded(numbers(2 * 2 * 6, 1), dtype), turned = turn_rows(dtype, x, {0, 5}, 2, 6);
        int changed = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            changed += turned[i] != x[i];
            if (i < 12) BOOST_TEST(turned[i] == x[i], "element " << i << " of " << name_of(dtype));
        }
        BOOST_TEST(changed >= 4);  // both heads' fast channels; bf16 does not see the slowest turn
    }
    for (const DeviceCase& on : device_cases()) {
        // Each token its own sequence: at position 0, where the context is the value and log_sum the plain product.
        const std::int64_t heads = 2, channels = 6, tokens = 2;
        const std::vector<double> qkv = rounded(numbers(tokens * 3 * heads * channels, 1), on.dtype);
        const DeviceTensor x = on.put({tokens, 3, heads, channels}, qkv), table = table_for(on, 2, channels), bounds = on.put_list({0, 1, 2});
        const DeviceTensor context = on.zeros({tokens, heads, channels}), log_sum = on.zeros_wide({heads, tokens});
        attention(on.stream(), {.qkv = x, .rotary = table, .cu_seqlens = bounds, .context = context, .log_sum = log_sum});
        const std::vector<double> y = to_host(context), sums = to_host(log_sum);
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t h = 0; h < heads; ++h) {
                const auto at = [&](std::int64_t part, std::int64_t c) { return qkv[static_cast<std::size_t>(((t * 3 + part) * heads + h) * channels + c)]; };
                double product = 0;
                for (std::int64_t c = 0; c < channels; ++c) {
                    // A GPU divides by the probability it multiplied with: 1 but for the rounding of its exponential.
                    check_close(y[static_cast<std::size_t>((t * heads + h) * channels + c)], at(2, c), on.device == Device::cpu ? 0 : on.tolerance(1));
                    product += at(0, c) * at(1, c);
                }
                check_close(sums[static_cast<std::size_t>(h * tokens + t)], product, on.wide_tolerance(channels));
            }
    }
}

BOOST_AUTO_TEST_CASE(backward_turns_back) {
    for (const Dtype dtype : dtypes)
        check_all(turn_rows(dtype, turn_rows(dtype, {1, 2, 3, 4}, {7}, 1, 4), {7}, 1, 4, Way::backward), {1, 2, 3, 4}, tolerance(dtype, 2));
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    for (const std::int64_t channels : {2, 18}) {
        const std::vector<double> x = numbers(3 * 2 * channels, 1), weights = numbers(3 * 2 * channels, 2), positions{0, 1, 511};
        const auto loss = [&](const std::vector<double>& v) { return dot(turn_rows(Dtype::f64, v, positions, 2, channels), weights); };
        BOOST_TEST(worst_difference(x, turn_rows(Dtype::f64, weights, positions, 2, channels, Way::backward), loss) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const Dtype dtype : dtypes)
        for (const std::int64_t channels : {2, 14, 16, 18, 64}) {
            const std::vector<double> x = rounded(numbers(2 * 3 * channels, 1), dtype), positions{1, 599};
            for (const Way way : {Way::forward, Way::backward})
                check_all(turn_rows(dtype, x, positions, 3, channels, way), turn_rows(Dtype::f64, x, positions, 3, channels, way), tolerance(dtype, 2));
        }
}

BOOST_AUTO_TEST_CASE(a_table_of_another_shape_is_refused) {
    const DeviceCase on = exact_case();
    const DeviceTensor flat = on.zeros({2, 4}), triples = on.zeros({2, 2, 3});
    BOOST_CHECK_THROW(rotary_table(flat), Error);
    BOOST_CHECK_THROW(rotary_table(triples), Error);
}
