#pragma once

#include "kernels/score_loss.hpp"
#include "tasks/heads.hpp"

namespace rf::tasks {

enum class DenseLoss {
    classes,   ///< softmax over the outputs of a sequence
    choices,   ///< softmax over the sequences of an example, `outputs` of them; one output each
    square,    ///< (output - score)^2
    pairwise,  ///< lists of candidates (kernels/score_loss.hpp)
    listwise,
};

/// logits = x[first token] Wᵀ + b.
class DenseHead final : public TaskHead {
public:
    struct Spec {
        std::string task;
        DenseLoss loss = DenseLoss::classes;
        std::int64_t outputs = 2;  ///< classes, or choices of an example; other losses have one
    };
    DenseHead(const ModelConfig& model, const Spec& spec, ParamLayout& layout);

    /// [S, outputs] (of `choices` and scores [S, 1]) in the accumulator dtype, from the arena.
    Tensor logits(const StepContext& step, const ParamView& weights, const ConstTensor& x) const;
    Outputs outputs(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const override;
    bool fits(const ConstTensor& x, const HeadLabels& labels) const override {
        return spec_.loss != DenseLoss::choices || x.shape[0] == labels.label.shape[0] * spec_.outputs;
    }

protected:
    void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const HeadLabels& labels, const Scalar& factor,
             const Tensor& dx, const Tensor& sums) const override;

private:
    /// Adds to sums; d (absent: evaluation) = gradient of the logits, in x's dtype.
    void softmax(const StepContext& step, const Tensor& logits, const HeadLabels& labels, const Scalar& factor, const Tensor& d, const Tensor& sums) const;
    void scores(const StepContext& step, const Tensor& logits, const HeadLabels& labels, const Scalar& factor, const Tensor& d, const Tensor& sums) const;

    Spec spec_;
    ParamId dense_, bias_;
};

}  // namespace rf::tasks
