#include "kernels/score_loss.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

BOOST_AUTO_TEST_CASE(lists_of_every_length) {
    for (const ScoreLossKind kind : {ScoreLossKind::square, ScoreLossKind::pairwise, ScoreLossKind::listwise})
        for (const std::int64_t lists : {0, 1, 40, 300}) {
            Streams s;
            const auto begin = [](std::int64_t e) { return e * (e % 5) / 2 + 2 * e; };
            std::vector<std::int32_t> first{0};
            for (std::int64_t e = 0; e < lists; ++e) first.push_back(first.back() + static_cast<std::int32_t>(begin(e) % 9));
            const std::int64_t n = first.back();
            const Twin scores(s, {n}, Dtype::f32, 1), d(s, {n}, Dtype::f32, 2), sums(s, {2}, Dtype::f64, 3);
            const Twin grades(s, {n}, Dtype::f32, [](std::int64_t i) { return i % 11 == 7 ? std::nan("") : static_cast<double>(i * 7 % 4); });
            const Twin list_begin(s, {lists + 1}, Dtype::i32, [&](std::int64_t e) { return first[static_cast<std::size_t>(e)]; });
            const Twin factor(s, {1}, Dtype::f32, [](std::int64_t) { return 0.125; });
            s.run([&](Stream& stream) {
                score_loss(stream, {.scores = scores.on(stream), .grades = grades.on(stream), .list_begin = list_begin.on(stream), .kind = kind,
                                    .factor = factor.on(stream), .d_scores = d.on(stream), .sums = sums.on(stream)});
            });
            d.check("d_scores");
            sums.check(1e-6, "sums");
        }
}
