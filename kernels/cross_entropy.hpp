#pragma once

#include "core/stream.hpp"

namespace rf {

/// One rank's share of a softmax over a split vocabulary. `stats` [4, M] in the logits' dtype (f32 or f64):
/// row maximum; sum of exp(logit - maximum); the target's logit (0 where another rank owns it);
/// the id of the maximum (lowest on ties), as a number.
struct SoftmaxStats {
    ConstTensor logits;        ///< [M, v] f32 or f64
    ConstTensor targets;       ///< [M] i32, global ids
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

/// -log softmax(target) summed over rows in order (f64), and the number of rows whose largest logit is the target's.
struct CrossEntropySum {
    double loss = 0;
    std::int64_t correct = 0;
};
CrossEntropySum cross_entropy(Stream& stream, const ConstTensor& whole_stats, const ConstTensor& targets);

/// d_logits = (softmax - onehot) * factor, in d_logits' own dtype (f32, bf16 or f64). May share memory with logits
/// only where the dtypes agree.
struct CrossEntropyBackward {
    ConstTensor logits;        ///< [M, v]
    ConstTensor targets;       ///< [M]
    ConstTensor whole_stats;   ///< [4, M]
    Tensor d_logits;           ///< [M, v] out
    double factor = 1;         ///< 1 / number of targets of the whole global batch
    std::int64_t first_id = 0;
};
void cross_entropy_backward(Stream& stream, const CrossEntropyBackward& args);

}  // namespace rf
