#include "tasks/dense_head.hpp"

#include "kernels/bias.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/gemm.hpp"

namespace rf::tasks {

namespace {
bool is_softmax(DenseLoss loss) { return loss == DenseLoss::classes || loss == DenseLoss::choices; }
}  // namespace

DenseHead::DenseHead(const ModelConfig& model, const Spec& spec, ParamLayout& layout) : spec_(spec) {
    RF_REQUIRE(spec.outputs > 0, "task ", spec.task, ": a head of ", spec.outputs, " outputs");
    const std::int64_t outputs = spec.loss == DenseLoss::classes ? spec.outputs : 1;
    dense_ = layout.add({.name = head_parameter(spec.task, "dense"), .shape = {outputs, model.hidden_size}, .fan = model.hidden_size});
    bias_ = layout.add({.name = head_parameter(spec.task, "bias"), .shape = {outputs}});
}

Tensor DenseHead::logits(const StepContext& step, const ParamView& weights, const ConstTensor& x) const {
    const Tensor dense = weights[dense_];
    const Tensor logits = step.arena.tensor({x.shape[0], dense.shape[0]}, accumulator_of(x.dtype));
    gemm(step.stream, {.a = x, .b = dense, .trans_b = true, .c = logits});
    add_bias(step.stream, {.bias = weights[bias_], .y = logits});
    return logits;
}

Outputs DenseHead::outputs(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels&) const {
    const Tensor y = logits(step, weights, x), narrow = step.arena.tensor(y.shape, Dtype::f32);
    cast(step.stream, {.x = y, .y = narrow});
    Outputs out;
    out.width = y.shape[1];
    out.logits.resize(static_cast<std::size_t>(y.count()));
    download(step.stream, narrow, out.logits.data());
    return out;
}

void DenseHead::run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const HeadLabels& labels,
                    const Scalar& factor, const Tensor& dx, const Tensor& sums) const {
    const ArenaScope scratch(step.arena);
    const Tensor y = logits(step, weights, x), d = grads ? step.arena.tensor(y.shape, x.dtype) : Tensor();
    if (is_softmax(spec_.loss))
        softmax(step, y, labels, factor, d, sums);
    else
        scores(step, y, labels, factor, d, sums);
    if (!grads) return;
    const Timed backward(step.backward, step.stream);
    gemm(step.stream, {.a = d, .trans_a = true, .b = x, .c = (*grads)[dense_], .beta = 1});
    add_bias_backward(step.stream, {.dy = d, .d_bias = (*grads)[bias_]});
    gemm(step.stream, {.a = d, .b = weights[dense_], .c = dx});
}

void DenseHead::softmax(const StepContext& step, const Tensor& logits, const HeadLabels& labels, const Scalar& factor, const Tensor& d, const Tensor& sums) const {
    const std::int64_t examples = labels.label.shape[0];
    RF_REQUIRE(logits.count() == examples * spec_.outputs, "task ", spec_.task, ": ", logits.count(), " logits for ", examples, " examples of ", spec_.outputs);
    const Shape shape{examples, spec_.outputs};
    const Tensor stats = step.arena.tensor({4, examples}, logits.dtype);
    softmax_stats(step.stream, {.logits = logits.reshape(shape), .targets = labels.label, .stats = stats});
    cross_entropy_sums(step.stream, {.whole_stats = stats, .targets = labels.label, .sums = sums});
    if (d)
        cross_entropy_backward(step.stream, {.logits = logits.reshape(shape), .targets = labels.label, .whole_stats = stats, .d_logits = d.reshape(shape), .factor = factor});
}

void DenseHead::scores(const StepContext& step, const Tensor& logits, const HeadLabels& labels, const Scalar& factor, const Tensor& d, const Tensor& sums) const {
    const ScoreLossKind kind = spec_.loss == DenseLoss::square     ? ScoreLossKind::square
                               : spec_.loss == DenseLoss::pairwise ? ScoreLossKind::pairwise
                                                                   : ScoreLossKind::listwise;
    const Shape shape{logits.count()};
    const Tensor wide = d && d.dtype != logits.dtype ? step.arena.tensor(shape, logits.dtype) : d ? d.reshape(shape) : Tensor();
    RF_REQUIRE(spec_.loss == DenseLoss::square || labels.list_begin, "task ", spec_.task, ": its loss needs lists of candidates");
    score_loss(step.stream, {.scores = logits.reshape(shape), .grades = labels.score, .list_begin = spec_.loss == DenseLoss::square ? ConstTensor() : labels.list_begin,
                             .kind = kind, .factor = factor, .d_scores = wide, .sums = sums});
    if (d && wide.data != d.data) cast(step.stream, {.x = wide, .y = d});
}

}  // namespace rf::tasks
