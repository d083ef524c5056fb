#include "kernels/score_loss.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/score_list.hpp"

namespace rf {

void score_loss(Stream& stream, const ScoreLoss& a) {
    const std::int64_t n = a.scores.shape[0], lists = a.list_begin ? a.list_begin.shape[0] - 1 : n;
    RF_REQUIRE(a.scores.shape.rank == 1 && a.grades.shape == a.scores.shape && a.grades.dtype == Dtype::f32, "scores must be [N] and grades [N] f32");
    RF_REQUIRE(a.scores.dtype != Dtype::bf16, "scores are f32 or f64");
    RF_REQUIRE(!a.d_scores || (a.d_scores.shape == a.scores.shape && a.d_scores.dtype == a.scores.dtype), "d_scores must be like scores");
    RF_REQUIRE(a.sums.shape == Shape{2} && a.sums.dtype == Dtype::f64, "sums must be [2] f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::score_loss(stream, a);
    const OpScope scope(stream, {.name = "score_loss"});
    dispatch(a.scores.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
        ScoreList<R> list{.scores = raw<R>(a.scores), .grades = raw<float>(a.grades), .d_scores = a.d_scores ? raw<R>(a.d_scores) : nullptr,
                          .begin = 0, .end = 0, .factor = static_cast<R>(a.factor.read())};
        for (std::int64_t e = 0; e < lists; ++e) {
            list.begin = a.list_begin ? indices(a.list_begin)[e] : static_cast<int>(e);
            list.end = a.list_begin ? indices(a.list_begin)[e + 1] : static_cast<int>(e) + 1;
            const ScoreListResult result = score_list(list, a.kind);
            a.sums.as<double>()[0] += result.loss;
            a.sums.as<double>()[1] += result.correct;
        }
    });
}

}  // namespace rf
