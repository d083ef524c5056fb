#include "kernels/cross_entropy.hpp"

#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Result {
    std::vector<double> whole;  ///< [4, M]
    double loss;
    double correct;
    std::vector<double> d_logits;  ///< [M, V]
};

/// Softmax over V columns that are cut at `cuts` (0 … V) into the shares of as many ranks.
Result solve(const DeviceCase& on, const std::vector<double>& logits, const std::vector<double>& targets, std::vector<std::int64_t> cuts, const Scalar& factor) {
    const auto m = static_cast<std::int64_t>(targets.size()), ranks = static_cast<std::int64_t>(cuts.size()) - 1, all = cuts.back();
    const DeviceTensor ids = on.put_list(targets), whole = on.zeros_wide({4, m});
    std::vector<DeviceTensor> shares;
    std::vector<double> parts;
    Stream& stream = on.stream();
    for (std::int64_t r = 0; r < ranks; ++r) {
        const std::int64_t first = cuts[static_cast<std::size_t>(r)], v = cuts[static_cast<std::size_t>(r) + 1] - first;
        std::vector<double> share;
        for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < v; ++j) share.push_back(logits[static_cast<std::size_t>(i * all + first + j)]);
        shares.push_back(on.put_wide({m, v}, share));
        const DeviceTensor stats = on.zeros_wide({4, m});
        softmax_stats(stream, {.logits = shares.back(), .targets = ids, .stats = stats, .first_id = first});
        for (const double x : to_host(stats)) parts.push_back(x);
    }
    const DeviceTensor gathered = on.put_wide({ranks, 4, m}, parts);
    join_softmax_stats(stream, {.parts = gathered, .whole = whole});
    const DeviceTensor sums = to_device(on.device, {2}, Dtype::f64, {0, 0});
    cross_entropy_sums(stream, {.whole_stats = whole, .targets = ids, .sums = sums});
    const std::vector<double> total = to_host(sums);
    Result result{to_host(whole), total[0], total[1], std::vector<double>(logits.size())};
    for (std::int64_t r = 0; r < ranks; ++r) {
        const std::int64_t first = cuts[static_cast<std::size_t>(r)], v = cuts[static_cast<std::size_t>(r) + 1] - first;
        const DeviceTensor d = on.zeros({m, v});
        cross_entropy_backward(stream, {.logits = shares[static_cast<std::size_t>(r)], .targets = ids, .whole_stats = whole, .d_logits = d,
                                        .factor = factor, .first_id = first});
        const std::vector<double> part = to_host(d);
        for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < v; ++j) result.d_logits[static_cast<std::size_t>(i * all + first + j)] = part[static_cast<std::size_t>(i * v + j)];
    }
    return result;
}

}  // namespace

BOOST_AUTO_TEST_CASE(loss_is_minus_the_log_of_the_targets_probability) {
    for (const DeviceCase& on : device_cases()) {
        const double wide = on.wide_tolerance(2), log3 = std::log(3.0);
        // Probabilities 1/4 and 3/4 in both rows.
        const Result r = solve(on, {0, log3, 1 + log3, 1}, {1, 1}, {0, 2}, 0.5);
        check_close(r.loss, std::log(4.0 / 3) + std::log(4.0), wide);
        BOOST_TEST(r.correct == 1);
        check_all(r.whole, {log3, 1 + log3, 4.0 / 3, 4.0 / 3, log3, 1, 1, 0}, wide);
        check_all(r.d_logits, {0.125, -0.125, 0.375, -0.375}, on.tolerance(2));
    }
}

BOOST_AUTO_TEST_CASE(of_equal_logits_the_lowest_id_counts_as_largest) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> logits{1, 2, 2, 0, 2};
        for (const auto& cuts : {std::vector<std::int64_t>{0, 5}, {0, 1, 5}, {0, 2, 3, 5}}) {
            BOOST_TEST(solve(on, logits, {1}, cuts, 1).correct == 1);
            BOOST_TEST(solve(on, logits, {2}, cuts, 1).correct == 0);
            BOOST_TEST(solve(on, logits, {4}, cuts, 1).correct == 0);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_split_vocabulary_gives_the_whole_ones_numbers) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> logits = rounded(numbers(4 * 37, 1), accumulator_of(on.dtype)), targets{0, 36, 17, 16};
        const Result one = solve(on, logits, targets, {0, 37}, 0.25);
        for (const auto& cuts : {std::vector<std::int64_t>{0, 18, 37}, {0, 9, 18, 27, 37}, {0, 1, 17, 37}}) {
            const Result split = solve(on, logits, targets, cuts, 0.25);
            check_all(split.whole, one.whole, on.wide_tolerance(37));
            check_close(split.loss, one.loss, on.wide_tolerance(37));
            BOOST_TEST(split.correct == one.correct);
            check_all(split.d_logits, one.d_logits, on.tolerance(37));
        }
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    const std::vector<double> logits = numbers(3 * 17, 1), targets{16, 0, 5};
    for (const auto& cuts : {std::vector<std::int64_t>{0, 17}, {0, 8, 17}}) {
        const auto loss = [&](const std::vector<double>& x) { return solve(exact_case(), x, targets, cuts, 1).loss / 3; };
        BOOST_TEST(worst_difference(logits, solve(exact_case(), logits, targets, cuts, 1.0 / 3).d_logits, loss) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    for (const DeviceCase& on : device_cases())
        for (const std::int64_t v : {1, 15, 16, 17, 1000}) {
            const std::vector<double> logits = rounded(numbers(2 * v, 1), accumulator_of(on.dtype)), targets{0, static_cast<double>(v - 1)};
            const Result got = solve(on, logits, targets, {0, v}, 0.5), expected = solve(exact_case(), logits, targets, {0, v}, 0.5);
            check_all(got.whole, expected.whole, on.wide_tolerance(v));
            check_close(got.loss, expected.loss, on.wide_tolerance(v));
            check_all(got.d_logits, expected.d_logits, on.tolerance(1));
        }
}

BOOST_AUTO_TEST_CASE(rows_with_a_negative_target_do_not_count) {
    for (const DeviceCase& on : device_cases())
        for (const auto& cuts : {std::vector<std::int64_t>{0, 37}, {0, 18, 37}}) {
            const std::vector<double> logits = rounded(numbers(4 * 37, 1), accumulator_of(on.dtype));
            const Result with = solve(on, logits, {5, -1, 36, -1}, cuts, 0.25);
            std::vector<double> counted(logits.begin(), logits.begin() + 37);
            counted.insert(counted.end(), logits.begin() + 2 * 37, logits.begin() + 3 * 37);
            const Result without = solve(on, counted, {5, 36}, cuts, 0.25);
            BOOST_TEST(with.loss == without.loss);
            BOOST_TEST(with.correct == without.correct);
            for (std::size_t j = 0; j < 37; ++j) {
                BOOST_TEST(with.d_logits[j] == without.d_logits[j]);
                BOOST_TEST(with.d_logits[37 + j] == 0);
                BOOST_TEST(with.d_logits[2 * 37 + j] == without.d_logits[37 + j]);
                BOOST_TEST(with.d_logits[3 * 37 + j] == 0);
            }
        }
}

BOOST_AUTO_TEST_CASE(sums_are_added_to_what_stands_there) {
    for (const DeviceCase& on : device_cases()) {
        // Whole stats by hand: maximum, sum, target's logit, id of the maximum. Losses ln 2 + 3 - 1 and ln 1 + 5 - 5.
        const DeviceTensor stats = on.put_wide({4, 3}, {3, 5, 9, 2, 1, 1, 1, 5, 0, 7, 8, 6}), ids = on.put_list({4, 8, -1});
        const DeviceTensor sums = to_device(on.device, {2}, Dtype::f64, {10, 20});
        for (int times = 1; times <= 2; ++times) {
            cross_entropy_sums(on.stream(), {.whole_stats = stats, .targets = ids, .sums = sums});
            check_all(sums, {10 + times * (std::log(2.0) + 2), 20.0 + times}, on.device == Device::cpu ? 1e-15 : 1e-6);
        }
    }
}

BOOST_AUTO_TEST_CASE(a_factor_in_memory_gives_the_bits_of_a_number) {
    for (const DeviceCase& on : device_cases()) {
        const std::vector<double> logits = rounded(numbers(2 * 17, 1), accumulator_of(on.dtype)), targets{3, 16};
        const DeviceTensor factor = on.put({1}, {0.375});
        const Result number = solve(on, logits, targets, {0, 17}, 0.375), memory = solve(on, logits, targets, {0, 17}, factor.tensor());
        check_all(memory.d_logits, number.d_logits, 0);
        BOOST_TEST(number.d_logits != solve(on, logits, targets, {0, 17}, 1).d_logits);
    }
}

BOOST_AUTO_TEST_CASE(a_gradient_sums_to_zero_over_the_vocabulary) {
    for (const DeviceCase& on : device_cases()) {
        const std::int64_t v = 1000;
        const Result r = solve(on, numbers(v, 1), {3}, {0, v}, 1);
        double sum = 0;
        for (const double d : r.d_logits) sum += d;
        BOOST_TEST(std::abs(sum) < on.tolerance(v));
    }
}

BOOST_AUTO_TEST_CASE(logits_of_any_size_do_not_overflow) {
    for (const DeviceCase& on : device_cases()) {
        const Result r = solve(on, {1e4, 0, -1e4, 1e4}, {1, 1}, {0, 2}, 1);
        check_close(r.loss, 1e4, on.wide_tolerance(2));  // the second row's is 0
        check_all(r.d_logits, {1, -1, 0, 0}, 0);
    }
}

BOOST_AUTO_TEST_CASE(no_rows_have_no_loss) {
    for (const DeviceCase& on : device_cases()) {
        const Result r = solve(on, {}, {}, {0, 5}, 1);
        BOOST_TEST(r.loss == 0);
        BOOST_TEST(r.correct == 0);
    }
}

BOOST_AUTO_TEST_CASE(the_gradient_may_take_the_place_of_the_logits) {
    for (const DeviceCase& on : device_cases()) {
        if (on.dtype != accumulator_of(on.dtype)) continue;
        const std::vector<double> logits = rounded(numbers(2 * 17, 1), on.dtype);
        const DeviceTensor d = on.put({2, 17}, logits), ids = on.put_list({3, 16}), stats = on.zeros({4, 2});
        Stream& stream = on.stream();
        softmax_stats(stream, {.logits = d, .targets = ids, .stats = stats});
        cross_entropy_backward(stream, {.logits = d, .targets = ids, .whole_stats = stats, .d_logits = d, .factor = 0.5});
        check_all(d, solve(on, logits, {3, 16}, {0, 17}, 0.5).d_logits, 0);
    }
}
