#include "kernels/score_loss.hpp"

#include "core/cpu.hpp"
#include "tests/kernels/device_case.hpp"
#include "tests/kernels/gradient_check.hpp"

using namespace rf;
using namespace rf::test;

namespace {

const double unknown = std::nan("");

std::vector<DeviceCase> score_cases() {
    std::vector<DeviceCase> cases;
    for (const DeviceCase& on : device_cases())
        if (on.dtype != Dtype::bf16) cases.push_back(on);
    return cases;
}

struct Result {
    double loss, correct;
    std::vector<double> d_scores;
};

Result solve(const DeviceCase& on, ScoreLossKind kind, const std::vector<double>& scores, const std::vector<double>& grades, const std::vector<double>& lists,
             double factor = 1) {
    const auto n = static_cast<std::int64_t>(scores.size());
    const DeviceTensor s = on.put({n}, scores), g = to_device(on.device, {n}, Dtype::f32, grades), d = on.zeros({n});
    const DeviceTensor begin = lists.empty() ? DeviceTensor() : on.put_list(lists), sums = to_device(on.device, {2}, Dtype::f64, {0, 0});
    score_loss(on.stream(), {.scores = s, .grades = g, .list_begin = begin, .kind = kind, .factor = factor, .d_scores = d, .sums = sums});
    const std::vector<double> total = to_host(sums);
    return {total[0], total[1], to_host(d)};
}

}  // namespace

BOOST_AUTO_TEST_CASE(square_errors_by_hand) {
    for (const DeviceCase& on : score_cases()) {
        const Result r = solve(on, ScoreLossKind::square, {1, 5, -2}, {3, unknown, -2.5}, {}, 0.5);
        BOOST_TEST(r.loss == 4.25);
        BOOST_TEST(r.correct == 0);
        check_all(r.d_scores, {-2, 0, 0.5}, 0);
    }
}

BOOST_AUTO_TEST_CASE(pairwise_losses_by_hand) {
    for (const DeviceCase& on : score_cases()) {
        // One list of two grades, one whose grades are equal, one of a single candidate, an empty one.
        const Result r = solve(on, ScoreLossKind::pairwise, {0, std::log(3.0), 2, 1, 7}, {1, 0, 2, 2, 5}, {0, 2, 4, 5, 5}, 0.5);
        check_close(r.loss, std::log(4.0), on.tolerance(1));
        BOOST_TEST(r.correct == 0);
        check_all(r.d_scores, {-0.375, 0.375, 0, 0, 0}, on.tolerance(1));
        // Three grades are three pairs; the best first.
        const Result three = solve(on, ScoreLossKind::pairwise, {3, 2, 1}, {2, 1, 0}, {0, 3});
        check_close(three.loss, (2 * std::log1p(std::exp(-1)) + std::log1p(std::exp(-2))) / 3, on.tolerance(3));
        BOOST_TEST(three.correct == 1);
    }
}

BOOST_AUTO_TEST_CASE(listwise_losses_by_hand) {
    for (const DeviceCase& on : score_cases()) {
        // Wanted 1/4 and 3/4, given 1/2 and 1/2; what is not known takes no part.
        const Result r = solve(on, ScoreLossKind::listwise, {1, 50, 1}, {0, unknown, std::log(3.0)}, {0, 3}, 2);
        check_close(r.loss, std::log(2.0), on.tolerance(2));
        BOOST_TEST(r.correct == 0);  // the first of equals
        check_all(r.d_scores, {0.5, 0, -0.5}, std::max(on.tolerance(2), 0x1p-24 * std::log(3.0)));  // grades are f32
        const Result nothing = solve(on, ScoreLossKind::listwise, {1, 2}, {unknown, unknown}, {0, 2});
        BOOST_TEST(nothing.loss == 0);
        BOOST_TEST(nothing.correct == 0);
        check_all(nothing.d_scores, {0, 0}, 0);
    }
}

BOOST_AUTO_TEST_CASE(scores_of_any_size_do_not_overflow) {
    for (const DeviceCase& on : score_cases()) {
        const Result pair = solve(on, ScoreLossKind::pairwise, {-1e4, 1e4}, {1, 0}, {0, 2});
        BOOST_TEST(pair.loss == 2e4);
        check_all(pair.d_scores, {-1, 1}, 0);
        check_close(solve(on, ScoreLossKind::listwise, {-1e4, 1e4}, {100, 0}, {0, 2}).loss, 2e4, on.tolerance(1));
    }
}

BOOST_AUTO_TEST_CASE(gradients_agree_with_central_differences) {
    const std::vector<double> scores = numbers(17, 1), lists{0, 3, 3, 4, 10, 17};
    std::vector<double> grades;
    for (int i = 0; i < 17; ++i) grades.push_back(i == 8 ? unknown : i * 7 % 4);
    for (const ScoreLossKind kind : {ScoreLossKind::square, ScoreLossKind::pairwise, ScoreLossKind::listwise}) {
        const auto loss = [&](const std::vector<double>& x) { return 0.3 * solve(exact_case(), kind, x, grades, lists).loss; };
        BOOST_TEST(worst_difference(scores, solve(exact_case(), kind, scores, grades, lists, 0.3).d_scores, loss) < gradient_bound);
    }
}

BOOST_AUTO_TEST_CASE(lower_precision_agrees_with_f64) {
    const std::vector<double> scores = rounded(numbers(600, 1), Dtype::f32), grades = rounded(numbers(600, 2), Dtype::f32);
    std::vector<double> lists;
    for (int i = 0; i <= 300; ++i) lists.push_back(2 * i);
    for (const DeviceCase& on : score_cases())
        for (const ScoreLossKind kind : {ScoreLossKind::square, ScoreLossKind::pairwise, ScoreLossKind::listwise}) {
            const Result got = solve(on, kind, scores, grades, lists), expected = solve(exact_case(), kind, scores, grades, lists);
            check_close(got.loss, expected.loss, on.tolerance(2));
            BOOST_TEST(got.correct == expected.correct);
            check_all(got.d_scores, expected.d_scores, on.tolerance(2));
        }
}
