/// Dropout by counter, seen through the ops that use it.

#include "kernels/dropout.hpp"

#include "kernels/add_norm.hpp"
#include "kernels/attention.hpp"
#include "tests/kernels/gradient_check.hpp"
#include "tests/kernels/rotary_table.hpp"

using namespace rf;
using namespace rf::test;

namespace {

const Dropout drop{.rate = 0.25, .seed = 0x123456789abcdefULL, .detail = 77};

/// The documented formula: 16 bits of element e in the row of a token.
std::uint32_t bits_of(const Dropout& d, std::uint32_t sample, std::uint32_t position, std::uint32_t detail, std::uint32_t e) {
    const std::uint32_t word = philox({e / 8, position, sample, philox_stream(Purpose::dropout, detail)}, philox_key(d.seed))[e % 8 / 2];
    return e % 2 == 0 ? word & 0xffffU : word >> 16;
}
bool kept(const Dropout& d, std::uint32_t sample, std::uint32_t position, std::uint32_t detail, std::uint32_t e) {
    return bits_of(d, sample, position, detail, e) >= d.threshold();
}

/// What add_norm makes of rows of ones: the scale where kept, else 0.
std::vector<double> mask(const DeviceCase& on, const Dropout& d, const std::vector<double>& sample, const std::vector<double>& position, std::int64_t channels) {
    const auto tokens = static_cast<std::int64_t>(sample.size());
    const DeviceTensor f = on.put({tokens, channels}, std::vector<double>(static_cast<std::size_t>(tokens * channels), 1)), y = on.zeros({tokens, channels});
    const DeviceTensor samples = on.put_list(sample), positions = on.put_list(position);
    Stream& stream = on.stream();
    add_norm(stream, {.f = f, .y = y, .normalise = false, .dropout = d, .origin = {.sample = samples, .position = positions}});
    return to_host(y);
}

}  // namespace

BOOST_AUTO_TEST_CASE(philox_gives_the_published_numbers) {
    // Known answers of Philox4x32-10 that accompany its paper: counter and key of zeros, of ones, and of digits of pi.
    BOOST_TEST((philox({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    BOOST_TEST((philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}) == PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    BOOST_TEST((philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
                PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

BOOST_AUTO_TEST_CASE(rates_are_rounded_to_16_bits_and_scaled_exactly) {
    BOOST_TEST(Dropout{.rate = 0.1}.threshold() == 6554);
    BOOST_TEST(Dropout{.rate = 0.1}.scale() == 65536.0 / 58982);
    BOOST_TEST(!Dropout{}.active());
    BOOST_TEST(!Dropout{.rate = 7e-6}.active());  // below half of 1 / 65536
}

BOOST_AUTO_TEST_CASE(masks_are_those_of_the_formula) {
    const std::vector<double> sample{0, 3, 3, 2147483647}, position{0, 0, 511, 9};
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t channels : {1, 7, 16, 17, 130, 300}) {
            const std::vector<double> y = mask(on, drop, sample, position, channels);
            const double scale = rounded({drop.scale()}, on.dtype)[0];
            std::size_t at = 0;
            for (std::size_t t = 0; t < sample.size(); ++t)
                for (std::int64_t e = 0; e < channels; ++e, ++at)
                    BOOST_TEST(y[at] == (kept(drop, static_cast<std::uint32_t>(sample[t]), static_cast<std::uint32_t>(position[t]), 77,
                                              static_cast<std::uint32_t>(e)) ? scale : 0));
        }
}

BOOST_AUTO_TEST_CASE(attention_drops_by_query_position_key_and_global_head) {
    // Equal scores and the unit matrix as values: the context shows the dropped probabilities, 1 / n each.
    constexpr std::int64_t n = 20, heads = 2, first_head = 3;
    std::vector<double> qkv(n * 3 * heads * n, 0);
    for (std::int64_t t = 0; t < n; ++t)
        for (std::int64_t h = 0; h < heads; ++h) qkv[static_cast<std::size_t>(((t * 3 + 2) * heads + h) * n + t)] = 1;
    for (const DeviceCase& on : device_cases()) {
        const DeviceTensor x = on.put({n, 3, heads, n}, qkv), bounds = on.put_list({0, n}), sample = on.put_list({41});
        const DeviceTensor context = on.zeros({n, heads, n}), log_sum = on.zeros_wide({heads, n});
        Stream& stream = on.stream();
        attention(stream, {.qkv = x, .cu_seqlens = bounds, .sample = sample, .context = context, .log_sum = log_sum, .first_head = first_head, .dropout = drop});
        const std::vector<double> y = to_host(context);
        for (std::uint32_t i = 0; i < n; ++i)
            for (std::uint32_t h = 0; h < heads; ++h)
                for (std::uint32_t j = 0; j < n; ++j)
                    check_close(y[(i * heads + h) * n + j], kept(drop, 41, i, 77 * 256 + first_head + h, j) ? drop.scale() / n : 0, on.tolerance(1));
    }
}

BOOST_AUTO_TEST_CASE(masks_do_not_depend_on_the_batch_around_a_token) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> together = mask(on, drop, {4, 5, 6}, {1, 2, 3}, 40), alone = mask(on, drop, {5}, {2}, 40);
        BOOST_TEST((std::vector<double>(together.begin() + 40, together.begin() + 80) == alone));
    }
}

BOOST_AUTO_TEST_CASE(seed_detail_sample_and_position_each_change_the_mask) {
    const DeviceCase on{Device::cpu, Dtype::f32};
    const std::vector<double> one = mask(on, drop, {5}, {2}, 256);
    Dropout seed = drop, high_seed = drop, detail = drop;
    seed.seed ^= 1, high_seed.seed ^= 1ULL << 40, detail.detail += 1;
    for (const auto& other : {mask(on, seed, {5}, {2}, 256), mask(on, high_seed, {5}, {2}, 256), mask(on, detail, {5}, {2}, 256),
                              mask(on, drop, {6}, {2}, 256), mask(on, drop, {5}, {3}, 256)}) {
        // Independent masks agree where both keep or both drop: 0.625 of the elements, standard deviation 0.030 of 256.
        double same = 0;
        for (std::size_t i = 0; i < one.size(); ++i) same += one[i] == other[i];
        BOOST_TEST(std::abs(same / 256 - 0.625) < 5 * 0.0303);
    }
}

BOOST_AUTO_TEST_CASE(the_share_of_dropped_elements_and_the_mean_are_right) {
    constexpr std::int64_t tokens = 400, channels = 512;
    std::vector<double> sample(tokens, 3), position;
    for (std::int64_t t = 0; t < tokens; ++t) position.push_back(static_cast<double>(t));
    for (const double rate : {0.1, 0.5, 0.9}) {
        const Dropout d{.rate = rate, .seed = 5, .detail = 2};
        const double p = d.threshold() / 65536.0, n = tokens * channels;
        double kept_count = 0, sum = 0;
        for (const double v : mask({Device::cpu, Dtype::f32}, d, sample, position, channels)) kept_count += v != 0, sum += v;
        // Binomial: four standard deviations. The mask is fixed, so this passes always or never.
        const double deviation = std::sqrt(p * (1 - p) / n);
        BOOST_TEST(std::abs(kept_count / n - (1 - p)) < 4 * deviation);
        BOOST_TEST(std::abs(sum / n - 1) < 4 * deviation / (1 - p));
    }
}
