#include "model/mlm_head.hpp"

#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gather.hpp"
#include "kernels/gemm.hpp"

#include <algorithm>

namespace rf {

void MlmHead::evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const MlmTargets& what, const Tensor& sums) const {
    run(step, weights, nullptr, x, what, 0, {}, sums);
}

void MlmHead::forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x,
                               const MlmTargets& what, const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    run(step, weights, &grads, x, what, factor, dx, sums);
}

void MlmHead::run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const MlmTargets& what,
                  const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    const ArenaScope scratch(step.arena);
    const Dtype sum_type = accumulator_of(x.dtype);
    const Tensor word = weights[word_];
    const std::int64_t m = what.rows.shape[0], c = x.shape[1], v = word.shape[0];
    const Dropout drop = step.dropout(dropout_, head_dropout);
    const Tensor h = step.arena.tensor({m, c}, x.dtype), dh = step.arena.tensor({m, c}, x.dtype);
    gather(step.stream, {.x = x, .rows = what.rows, .y = h, .dropout = drop, .origin = step.batch.origin});
    for (std::int64_t begin = 0; begin < m; begin += chunk_rows) {
        const ArenaScope chunk(step.arena);
        const std::int64_t end = std::min(m, begin + chunk_rows), n = end - begin;
        const ConstTensor targets = what.targets.rows(begin, end);
        const Tensor logits = step.arena.tensor({n, v}, sum_type);
        const Tensor part = step.arena.tensor({4, n}, sum_type), whole = step.arena.tensor({4, n}, sum_type);
        const Tensor parts = step.arena.tensor({step.tensor.size(), 4, n}, sum_type);
        gemm(step.stream, {.a = h.rows(begin, end), .b = word, .trans_b = true, .c = logits});
        softmax_stats(step.stream, {.logits = logits, .targets = targets, .stats = part, .first_id = first_id_});
        step.tensor.all_gather(step.stream, part, parts);
        join_softmax_stats(step.stream, {.parts = parts, .whole = whole});
        cross_entropy_sums(step.stream, {.whole_stats = whole, .targets = targets, .sums = sums});
        if (!grads) continue;
        const Timed backward(step.backward, step.stream);
        const Tensor d_logits = x.dtype == sum_type ? logits : step.arena.tensor({n, v}, x.dtype);
        cross_entropy_backward(step.stream, {.logits = logits, .targets = targets, .whole_stats = whole, .d_logits = d_logits,
                                             .factor = factor, .first_id = first_id_});
        gemm(step.stream, {.a = d_logits, .b = word, .c = dh.rows(begin, end)});
        gemm(step.stream, {.a = d_logits, .trans_a = true, .b = h.rows(begin, end), .c = (*grads)[word_], .beta = 1});
    }
    if (!grads) return;
    const Timed backward(step.backward, step.stream);
    step.tensor.all_reduce(step.stream, dh, ReduceOp::sum);  // each rank saw v of the V logits
    gather_backward(step.stream, {.dy = dh, .rows = what.rows, .dx = dx, .dropout = drop, .origin = step.batch.origin});
}

Tensor MlmHead::logits(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& rows) const {
    const Tensor word = weights[word_];
    const Tensor logits = step.arena.tensor({rows.shape[0], word.shape[0]}, accumulator_of(x.dtype));
    const ArenaScope scratch(step.arena);
    const Tensor h = step.arena.tensor({rows.shape[0], x.shape[1]}, x.dtype);
    gather(step.stream, {.x = x, .rows = rows, .y = h});
    gemm(step.stream, {.a = h, .b = word, .trans_b = true, .c = logits});
    return logits;
}

}  // namespace rf
