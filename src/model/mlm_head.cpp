#include "model/mlm_head.hpp"

#include "kernels/add_norm.hpp"
#include "kernels/bias.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/gemm.hpp"

#include <algorithm>

namespace rf {

MlmHead::MlmHead(const ModelConfig& m, const Encoder& encoder, ParamLayout& layout)
    : style_(m.style()), word_(encoder.word_table()), first_id_(encoder.first_id()), dropout_(style_.head_transform ? 0 : m.hidden_dropout_prob) {
    if (!style_.head_transform) return;
    const std::int64_t c = m.hidden_size;
    // Braces evaluate in order, so the layout follows the order of work.
    transform_ = Transform{layout.add({.name = "mlm/dense", .shape = {c, c}, .fan = c}),
                           style_.biases ? layout.add({.name = "mlm/dense_bias", .shape = {c}, .decays = false}) : ParamId{}, Norm(m, "mlm/norm", layout),
                           layout.add({.name = "mlm/bias", .shape = {m.vocab_size}, .split_axis = 0, .decays = false})};
}

ConstTensor MlmHead::transform(const StepContext& step, const ParamView& weights, const ConstTensor& x, Transformed& saved) const {
    if (!transform_) return x;
    saved.before = step.arena.tensor(x.shape, x.dtype);
    saved.after = step.arena.tensor(x.shape, x.dtype);
    gemm(step.stream, {.a = x, .b = weights[transform_->dense], .trans_b = true, .c = saved.before});
    bias_activation(step.stream, {.bias = style_.biases ? ConstTensor(weights[transform_->dense_bias]) : ConstTensor{}, .x = saved.before, .y = saved.after, .activation = activation()});
    return transform_->norm.forward(step, weights, {}, saved.after, saved.norm);
}

void MlmHead::transform_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x, const Transformed& saved,
                                 const Tensor& d, const Tensor& dx) const {
    if (!transform_) return;  // d is dx
    transform_->norm.backward(step, weights, grads, {}, d, saved.norm, {}, d);
    activation_backward(step.stream, {.x = saved.before, .dy = d, .dx = d, .activation = activation()});
    if (style_.biases) add_bias_backward(step.stream, {.dy = d, .d_bias = grads[transform_->dense_bias]});
    gemm(step.stream, {.a = d, .trans_a = true, .b = x, .c = grads[transform_->dense], .beta = 1});
    gemm(step.stream, {.a = d, .b = weights[transform_->dense], .c = dx});
}

void MlmHead::evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& targets, const Tensor& sums) const {
    run(step, weights, nullptr, x, targets, 0, {}, sums);
}

void MlmHead::forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x,
                               const ConstTensor& targets, const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    run(step, weights, &grads, x, targets, factor, dx, sums);
}

void MlmHead::run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const ConstTensor& targets,
                  const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    const ArenaScope scratch(step.arena);
    const Dtype sum_type = accumulator_of(x.dtype);
    const Tensor word = weights[word_];
    const std::int64_t m = x.shape[0], v = word.shape[0];
    RF_REQUIRE(targets.shape == Shape{m}, "hidden states ", x.shape, " for targets ", targets.shape);
    const Dropout drop = step.dropout(dropout_, head_dropout);
    ConstTensor kept = x;
    if (drop.active()) {
        const Tensor y = step.arena.tensor(x.shape, x.dtype);
        add_norm(step.stream, {.x = {}, .f = x, .y = y, .normalise = false, .dropout = drop, .origin = step.batch.read_origin});
        kept = y;
    }
    Transformed transformed;
    const ConstTensor h = transform(step, weights, kept, transformed);
    const Tensor dh = grads && transform_ ? step.arena.tensor(x.shape, x.dtype) : dx;
    for (std::int64_t begin = 0; begin < m; begin += chunk_rows) {
        const ArenaScope chunk(step.arena);
        const std::int64_t end = std::min(m, begin + chunk_rows), n = end - begin;
        const ConstTensor wanted = targets.rows(begin, end);
        const Tensor logits = step.arena.tensor({n, v}, sum_type);
        const Tensor part = step.arena.tensor({4, n}, sum_type), whole = step.arena.tensor({4, n}, sum_type);
        const Tensor parts = step.arena.tensor({step.tensor.size(), 4, n}, sum_type);
        gemm(step.stream, {.a = h.rows(begin, end), .b = word, .trans_b = true, .c = logits});
        if (transform_) add_bias(step.stream, {.bias = weights[transform_->bias], .y = logits});
        softmax_stats(step.stream, {.logits = logits, .targets = wanted, .stats = part, .first_id = first_id_});
        step.tensor.all_gather(step.stream, part, parts);
        join_softmax_stats(step.stream, {.parts = parts, .whole = whole});
        cross_entropy_sums(step.stream, {.whole_stats = whole, .targets = wanted, .sums = sums});
        if (!grads) continue;
        const Timed backward(step.backward, step.stream);
        const Tensor d_logits = x.dtype == sum_type ? logits : step.arena.tensor({n, v}, x.dtype);
        cross_entropy_backward(step.stream, {.logits = logits, .targets = wanted, .whole_stats = whole, .d_logits = d_logits,
                                             .factor = factor, .first_id = first_id_});
        if (transform_) add_bias_backward(step.stream, {.dy = d_logits, .d_bias = (*grads)[transform_->bias]});
        gemm(step.stream, {.a = d_logits, .b = word, .c = dh.rows(begin, end)});
        gemm(step.stream, {.a = d_logits, .trans_a = true, .b = h.rows(begin, end), .c = (*grads)[word_], .beta = 1});
    }
    if (!grads) return;
    const Timed backward(step.backward, step.stream);
    step.tensor.all_reduce(step.stream, dh, ReduceOp::sum);  // each rank saw v of the V logits
    transform_backward(step, weights, *grads, kept, transformed, dh, dx);
    if (drop.active())
        add_norm_backward(step.stream, {.dy = dx, .y = {}, .inv_rms = {}, .f = {}, .dx = {}, .df = dx, .d_alpha = {}, .scratch = {}, .normalise = false, .dropout = drop,
                                        .origin = step.batch.read_origin});
}

Tensor MlmHead::logits(const StepContext& step, const ParamView& weights, const ConstTensor& x) const {
    const Tensor word = weights[word_];
    const Tensor logits = step.arena.tensor({x.shape[0], word.shape[0]}, accumulator_of(x.dtype));
    const ArenaScope scratch(step.arena);
    Transformed saved;
    gemm(step.stream, {.a = transform(step, weights, x, saved), .b = word, .trans_b = true, .c = logits});
    if (transform_) add_bias(step.stream, {.bias = weights[transform_->bias], .y = logits});
    return logits;
}

}  // namespace rf
