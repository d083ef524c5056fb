#pragma once

#include "core/stream.hpp"

namespace rf {

/// One rank's share of a softmax over a split vocabulary. `stats` [4, M] in the logits' dtype (f32 or f64):
/// row maximum; sum of exp(logit - maximum); the target's logit (0 where another rank owns it);
/// the id of the maximum (lowest on ties), as a number.
struct SoftmaxStats {
    ConstTensor logits;        ///< [M, v] f32 or f64
    ConstTensor targets;       ///< [M] i32, global ids; negative: a row that does not count (padding of a captured step)
    Tensor stats;              ///< [4, M] out
    std::int64_t first_id = 0; ///< global id of column 0
};
void softmax_stats(Stream& stream, const SoftmaxStats& args);

/// Joins the shares of all tensor ranks in rank order: `whole` has the maximum, the sum, the target's logit, the id.
struct JoinSoftmaxStats {
    ConstTensor parts;         ///< [ranks, 4, M]
    Tensor whole;              ///< [4, M] out
};
void join_softmax_stats(Stream& stream, const JoinSoftmaxStats& args);

/// sums[0] += -log softmax(target), sums[1] += rows whose largest logit is the target's, over the rows with a target >= 0
/// in a fixed order.
struct CrossEntropySums {
    ConstTensor whole_stats;   ///< [4, M]
    ConstTensor targets;       ///< [M]
    Tensor sums;               ///< [2] f64, +=
};
void cross_entropy_sums(Stream& stream, const CrossEntropySums& args);

/// d_logits = (softmax - onehot) * factor, or 0 in rows whose target is negative, in d_logits' own dtype (f32, bf16 or f64). May share memory with logits
/// only where the dtypes agree.
struct CrossEntropyBackward {
    ConstTensor logits;        ///< [M, v]
    ConstTensor targets;       ///< [M]
    ConstTensor whole_stats;   ///< [4, M]
    Tensor d_logits;           ///< [M, v] out
    Scalar factor = 1;         ///< 1 / number of targets of the whole global batch
    std::int64_t first_id = 0;
};
void cross_entropy_backward(Stream& stream, const CrossEntropyBackward& args);

namespace cuda {
void softmax_stats(Stream& stream, const SoftmaxStats& args);
void join_softmax_stats(Stream& stream, const JoinSoftmaxStats& args);
void cross_entropy_sums(Stream& stream, const CrossEntropySums& args);
void cross_entropy_backward(Stream& stream, const CrossEntropyBackward& args);
}  // namespace cuda

}  // namespace rf
