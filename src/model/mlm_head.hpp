#pragma once
/// Masked-language-model head: logits = dropout(x) Eᵀ on the predicted positions only, with the word table E split over
/// the tensor group; no dense layer, no bias (RoFormerV2). Logits are never gathered and never whole for all positions.

#include "kernels/embedding.hpp"
#include "model/encoder.hpp"

namespace rf {

/// What is to be predicted in one packed batch.
struct MlmTargets {
    ConstTensor rows;     ///< [M] i32, positions in the packed batch, rising; -1: a row that does not count
    ConstTensor targets;  ///< [M] i32, token ids; -1 likewise
};

class MlmHead {
public:
    /// Rows of logits worked on at once: 512 rows of 12000 f32 logits are 24 MB.
    static constexpr std::int64_t chunk_rows = 512;

    /// Word table and its first local id, from the encoder.
    explicit MlmHead(const ModelConfig& model, const Encoder& encoder)
        : word_(encoder.word_table()), first_id_(encoder.first_id()), dropout_(model.hidden_dropout_prob) {}

    /// sums [2] f64 += { sum of cross-entropies in nats, positions whose largest logit is the target's }.
    void evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const MlmTargets& what, const Tensor& sums) const;
    /// The same, and the gradient of factor * sum(loss): the word table's (+=) and dx [T, C] (overwritten).
    void forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x,
                          const MlmTargets& what, const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    /// Logits [M, v] of this rank's part of the vocabulary, accumulator dtype; no dropout.
    Tensor logits(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& rows) const;

private:
    void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const MlmTargets& what,
             const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    ParamId word_;
    std::int64_t first_id_;
    double dropout_;
};

}  // namespace rf
