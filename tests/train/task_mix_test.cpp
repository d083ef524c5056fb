#include "train/task_mix.hpp"

#include "core/check.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>

using namespace rf;

BOOST_AUTO_TEST_CASE(tasks_are_drawn_by_weight) {
    const std::vector<double> weights{1, 5, 0.5, 3.5};  // not sums to 1
    constexpr int draws = 20000;
    const TaskMix mix(weights, 7);
    std::vector<double> found(weights.size(), 0);
    for (int i = 0; i < draws; ++i) ++found.at(static_cast<std::size_t>(mix.task_of(i)));
    for (std::size_t k = 0; k < weights.size(); ++k) {
        const double p = weights[k] / 10, deviation = std::sqrt(draws * p * (1 - p));
        BOOST_TEST(std::abs(found[k] - draws * p) < 5 * deviation, "task " << k << ": " << found[k]);
    }
}

BOOST_AUTO_TEST_CASE(a_draw_depends_on_seed_and_number_alone) {
    const TaskMix one({2, 1, 1}, 7), same({4, 2, 2}, 7), other({2, 1, 1}, 8);
    int differ = 0;
    for (int i = 500; i-- > 0;) {
        BOOST_TEST(one.task_of(i) == same.task_of(i));
        differ += one.task_of(i) != other.task_of(i);
    }
    // Independent draws differ with probability 1 - (1/4 + 1/16 + 1/16) = 5/8: 312 of 500, deviation 11.
    BOOST_TEST(std::abs(differ - 312) < 55);
    const TaskMix alone({3}, 7);
    for (int i = 0; i < 100; ++i) BOOST_TEST(alone.task_of(i) == 0);
    // Numbers beyond 32 bits are numbers of their own.
    int far = 0;
    for (std::int64_t i = 0; i < 500; ++i) far += one.task_of(i) != one.task_of(i + (std::int64_t{1} << 32));
    BOOST_TEST(std::abs(far - 312) < 55);
}

BOOST_AUTO_TEST_CASE(earlier_draws_of_a_task_are_counted_in_any_order) {
    const std::vector<double> weights{1, 2, 3};
    TaskMix mix(weights, 3);
    std::vector<std::int64_t> expected, counts(weights.size(), 0);
    for (int i = 0; i < 300; ++i) expected.push_back(counts[static_cast<std::size_t>(mix.task_of(i))]++);
    for (const std::int64_t i : {0, 1, 2, 3, 50, 299, 4, 4, 120, 119}) BOOST_TEST(mix.earlier(i) == expected[static_cast<std::size_t>(i)], "micro-step " << i);
    TaskMix later(weights, 3);  // of a continued run
    BOOST_TEST(later.earlier(250) == expected[250]);
}

BOOST_AUTO_TEST_CASE(a_mix_of_nothing_is_refused) { BOOST_CHECK_THROW(TaskMix({}, 1), Error); }
