#pragma once

#include "kernels/token_pairs.hpp"
#include "tasks/heads.hpp"
#include "tasks/outputs.hpp"

#include <vector>

namespace rf::tasks {

/// GlobalPointer, or its efficient form whose types share one query and key and differ by biases.
class PairHead final : public TaskHead {
public:
    struct Spec {
        std::string task;
        std::int64_t types = 1;
        std::int64_t ordered = 1;   ///< types whose pairs run from start to end; the rest may run backwards
        std::int64_t size = 64;     ///< of a query; even
        bool efficient = false;
        TokenPairKind kind = TokenPairKind::softmax;
        bool first_is_visible = false;  ///< the first token too may be both ends: the cell of no answer
    };
    PairHead(const ModelConfig& model, const Spec& spec, ParamLayout& layout);

    /// softmax: [4, L, S] statistics of kernels/token_pairs.hpp, without the first token: rows 2 and 3 are the best score and cell of each
    /// sequence that has a visible token. From the arena.
    Tensor best(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const {
        return stats(step, weights, x, labels, false);
    }
    /// Cells with a score above 0, in the order of sequences, types, starts and ends; those of sequence s begin at (*begin)[s]. Waits.
    std::vector<FoundCell> found(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels,
                                 std::vector<std::int64_t>& begin) const;
    Outputs outputs(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const override;
    bool reads_every_token() const override { return true; }
    std::int64_t rotary_size() const override { return spec_.size; }

protected:
    void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const HeadLabels& labels, const Scalar& factor,
             const Tensor& dx, const Tensor& sums) const override;

private:
    /// Statistics of a batch whose answers are not known.
    Tensor stats(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels, bool first_is_visible) const;
    Outputs best_answers(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const;
    /// The projection and what comes of it, in the arena.
    struct Forward {
        Tensor narrow;  ///< [T, 2 D] in x's dtype, where there are biases
        TokenPairs pairs;
    };
    Forward forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const HeadLabels& labels) const;
    Tensor loss(const StepContext& step, const TokenPairs& pairs, const Tensor& sums) const;
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x, const HeadLabels& labels, const Forward& saved,
                  const Tensor& stats, const Scalar& factor, const Tensor& dx) const;
    std::int64_t groups() const { return spec_.efficient ? 1 : spec_.types; }

    Spec spec_;
    ParamId dense_, bias_dense_;  ///< the second exists in the efficient form
};

}  // namespace rf::tasks
