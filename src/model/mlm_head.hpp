#pragma once
/// Masked-language-model head: logits = dropout(x) Eᵀ, where x are the last hidden states of the predicted positions (those the batch names as read), with the word table E split over
/// the tensor group; no dense layer, no bias (RoFormerV2). With BlockStyle::head_transform logits = norm(activation(x W + b)) Eᵀ + c (BERT), where W stands whole
/// on every tensor rank. Logits are never gathered and never whole for all positions.

#include "kernels/embedding.hpp"
#include "model/encoder.hpp"

namespace rf {

class MlmHead {
public:
    /// Rows of logits worked on at once: 512 rows of 12000 f32 logits are 24 MB.
    static constexpr std::int64_t chunk_rows = 512;

    /// Word table and its first local id, from the encoder.
    MlmHead(const ModelConfig& model, const Encoder& encoder, ParamLayout& layout);

    /// x [M, C], targets [M] i32 token ids, -1: a row that does not count.
    /// sums [2] f64 += { sum of cross-entropies in nats, positions whose largest logit is the target's }.
    void evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& targets, const Tensor& sums) const;
    /// The same, and the gradient of factor * sum(loss): the word table's (+=) and dx [M, C] (overwritten).
    void forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x,
                          const ConstTensor& targets, const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    /// Logits [M, v] of this rank's part of the vocabulary, accumulator dtype; no dropout.
    Tensor logits(const StepContext& step, const ParamView& weights, const ConstTensor& x) const;

private:
    /// The transform between encoder and word table.
    struct Transform {
        ParamId dense;       ///< [C, C]
        ParamId dense_bias;  ///< [C], of styles with biases
        Norm norm;
        ParamId bias;        ///< [V] split on 0: c
    };
    struct Transformed {
        Tensor before, after;  ///< [M, C] around the activation
        Norm::Saved norm;
    };
    Activation activation() const { return style_.gelu ? Activation::gelu : Activation::relu; }
    /// From hidden states to what meets the word table: themselves without a transform.
    ConstTensor transform(const StepContext& step, const ParamView& weights, const ConstTensor& x, Transformed& saved) const;
    /// dx from the gradient of the transformed ones, which it overwrites.
    void transform_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x, const Transformed& saved, const Tensor& d,
                            const Tensor& dx) const;
    void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const ConstTensor& targets,
             const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    BlockStyle style_;
    ParamId word_;
    std::int64_t first_id_;
    double dropout_;
    std::optional<Transform> transform_;
};

}  // namespace rf
