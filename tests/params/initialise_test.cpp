#include "params/initialise.hpp"

#include "core/buffer.hpp"
#include "core/cpu.hpp"
#include "tests/kernels/check_close.hpp"

#include <cstring>
#include <map>

using namespace rf;
using namespace rf::test;

namespace {

void fill(ParamLayout& layout) {
    layout.add({.name = "word", .shape = {101, 16}, .split_axis = 0, .fan = 16});
    layout.add({.name = "qkv", .shape = {3, 4, 4, 16}, .split_axis = 1, .fan = 16, .tensors = 3});
    layout.add({.name = "down", .shape = {16, 70}, .split_axis = 1, .fan = 70});
    layout.add({.name = "scale", .shape = {1}});
}

/// Values of every logical tensor by their global place, joined from all tensor ranks and data shards.
std::map<std::string, std::vector<float>> values(std::uint64_t seed, int tensor_ranks, int data_ranks) {
    std::map<std::string, std::vector<float>> all;
    for (int t = 0; t < tensor_ranks; ++t) {
        ParamLayout layout(t, tensor_ranks);
        fill(layout);
        const Shards shards(layout.size(), data_ranks, /*bucket=*/1);
        const Buffer buffer(shards.padded_size() * 4), own(shards.shard_size() * 4);
        for (int d = 0; d < data_ranks; ++d) {
            initialise(layout, seed, 1, own.tensor({shards.shard_size()}, Dtype::f32), shards, d);
            for (int b = 0; b < shards.buckets(); ++b)
                std::memcpy(buffer.data() + shards.piece(b, d).begin * 4, own.data() + shards.in_shard(b).begin * 4,
                            static_cast<std::size_t>(shards.in_shard(b).size() * 4));
        }
        for (const ParamEntry& e : layout.entries()) {
            auto& whole = all[e.spec.name];
            whole.resize(static_cast<std::size_t>(e.spec.shape.count()));
            const int axis = std::max(e.spec.split_axis, 0);
            std::int64_t inner = 1, outer = 1;
            for (int a = axis + 1; a < e.local.rank; ++a) inner *= e.local[a];
            for (int a = 0; a < axis; ++a) outer *= e.local[a];
            const float* from = buffer.tensor({shards.padded_size()}, Dtype::f32).as<float>() + e.offset;
            for (std::int64_t o = 0; o < outer; ++o)
                for (std::int64_t i = 0; i < e.local[axis] * inner; ++i)
                    whole[static_cast<std::size_t>((o * e.spec.shape[axis] + e.split_begin) * inner + i)] = *from++;
        }
    }
    return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(values_do_not_depend_on_the_split) {
    const auto one = values(7, 1, 1);
    for (const int tensor : {1, 2, 4})
        for (const int data : {1, 2, 3}) BOOST_TEST((values(7, tensor, data) == one), tensor << " tensor and " << data << " data ranks");
    BOOST_TEST((values(8, 1, 1) != one));
}

BOOST_AUTO_TEST_CASE(values_do_not_depend_on_threads) {
    set_thread_count(3);
    const auto three = values(7, 1, 1);
    set_thread_count(1);
    BOOST_TEST((values(7, 1, 1) == three));
    set_thread_count(cpu_count());
}

BOOST_AUTO_TEST_CASE(values_do_not_depend_on_the_order_of_the_tensors) {
    ParamLayout a, b;
    const ParamSpec x{.name = "x", .shape = {50, 4}, .fan = 4}, y{.name = "y", .shape = {30, 4}, .fan = 4};
    a.add(x), a.add(y);
    b.add(y), b.add(x);
    const Shards shards(a.size(), 1);
    const std::int64_t shard = shards.shard_size();
    const Buffer first(shard * 8), second(shard * 8);
    initialise(a, 3, 1, first.tensor({shard}, Dtype::f64), shards, 0);
    initialise(b, 3, 1, second.tensor({shard}, Dtype::f64), shards, 0);
    const auto at = [&](const Buffer& buffer, std::int64_t offset, std::int64_t n) {
        const double* p = buffer.tensor({shard}, Dtype::f64).as<double>() + offset;
        return std::vector<double>(p, p + n);
    };
    BOOST_TEST((at(first, a.entries()[0].offset, 200) == at(second, b.entries()[1].offset, 200)));
    BOOST_TEST((at(first, a.entries()[1].offset, 120) == at(second, b.entries()[0].offset, 120)));
    BOOST_TEST((at(first, a.entries()[0].offset, 120) != at(first, a.entries()[1].offset, 120)));
}

BOOST_AUTO_TEST_CASE(a_normal_cut_at_two_sigma_has_the_published_variance) {
    // Variance of the cut normal 0.7737413035 (section 8.3); its fourth moment gives the error of the estimate.
    const std::int64_t n = 200000;
    double sum = 0, square = 0, fourth = 0, largest = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double z = truncated_normal(1, 2, static_cast<std::uint64_t>(i));
        sum += z, square += z * z, fourth += z * z * z * z, largest = std::max(largest, std::abs(z));
    }
    const double variance = square / n, deviation = std::sqrt((fourth / n - variance * variance) / n);
    BOOST_TEST(std::abs(variance - 0.7737413035) < 4 * deviation);
    BOOST_TEST(std::abs(sum / n) < 4 * std::sqrt(0.7737413035 / n));
    BOOST_TEST(largest <= 2);
    BOOST_TEST(largest > 1.99);  // resampled, not scaled: values come close to the cut
}

BOOST_AUTO_TEST_CASE(resampling_leaves_the_shape_of_the_normal) {
    // Share of values within one parent sigma: erf(1 / sqrt 2) / erf(2 / sqrt 2).
    const double expected = std::erf(1 / std::sqrt(2.0)) / std::erf(2 / std::sqrt(2.0)), n = 100000;
    double inside = 0;
    for (std::uint64_t i = 0; i < 100000; ++i) inside += std::abs(truncated_normal(9, 1, i)) <= 1;
    BOOST_TEST(std::abs(inside / n - expected) < 4 * std::sqrt(expected * (1 - expected) / n));
}

BOOST_AUTO_TEST_CASE(the_standard_deviation_is_gain_over_the_root_of_the_fan) {
    for (const double gain : {1.0, 0.5}) {
        ParamLayout layout;
        const ParamId id = layout.add({.name = "w", .shape = {400, 384}, .fan = 384});
        const ParamId zero = layout.add({.name = "scale", .shape = {1}});
        const Shards shards(layout.size(), 1);
        const std::int64_t shard = shards.shard_size();
        const Buffer buffer(shard * 8);
        const Tensor flat = buffer.tensor({shard}, Dtype::f64);
        flat.as<double>()[layout[zero].offset] = 5;
        initialise(layout, 1, gain, flat, shards, 0);
        const double* w = ParamView(layout, flat)[id].as<double>();
        const double n = 400 * 384, expected = gain / std::sqrt(384.0);
        double square = 0, largest = 0;
        for (int i = 0; i < 400 * 384; ++i) square += w[i] * w[i], largest = std::max(largest, std::abs(w[i]));
        // Kurtosis of the cut normal is 2.37 (fourth moment 1.42 over 0.774^2): relative error of a variance sqrt(1.37 / n).
        BOOST_TEST(std::abs(square / n / (expected * expected) - 1) < 4 * std::sqrt(1.37 / n));
        BOOST_TEST(largest <= 2 * 1.13684723434 * expected);
        BOOST_TEST(flat.as<double>()[layout[zero].offset] == 0);  // fan 0
    }
}
