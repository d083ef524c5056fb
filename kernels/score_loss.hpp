#pragma once

#include "core/stream.hpp"

namespace rf {

enum class ScoreLossKind {
    square,    ///< (score - grade)^2, summed over the list
    pairwise,  ///< mean of log(1 + e^(s_b - s_a)) over the pairs with grade_a > grade_b (RankNet: Burges et al. 2005)
    listwise,  ///< cross-entropy of softmax(scores) against softmax(grades) (ListNet's top one: Cao et al. 2007)
};

/// Losses of scores against grades, list by list. A grade of NaN is not known: its score takes no part. A list that has nothing to
/// compare adds nothing. sums[0] += the lists' losses; sums[1] += lists (not of `square`) whose largest score, the first of equals, has
/// the largest grade. Sums in a fixed order.
struct ScoreLoss {
    ConstTensor scores;      ///< [N] f32 or f64
    ConstTensor grades;      ///< [N] f32
    ConstTensor list_begin;  ///< [E+1] i32; absent: every score is a list
    ScoreLossKind kind = ScoreLossKind::square;
    Scalar factor = 1;       ///< 1 / lists of the whole global batch
    Tensor d_scores;         ///< [N] out: gradient of factor * sum of losses; or absent
    Tensor sums;             ///< [2] f64, +=
};
void score_loss(Stream& stream, const ScoreLoss& args);

namespace cuda {
void score_loss(Stream& stream, const ScoreLoss& args);
}  // namespace cuda

}  // namespace rf
