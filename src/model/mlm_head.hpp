#pragma once
/// Masked-language-model head: logits = dropout(x) Eᵀ on the predicted positions only, with the word table E split over
/// the tensor group; no dense layer, no bias (RoFormerV2). With BlockStyle::head_transform logits = norm(activation(x W + b)) Eᵀ + c (BERT), where W stands whole
/// on every tensor rank. Logits are never gathered and never whole for all positions.

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
    MlmHead(const ModelConfig& model, const Encoder& encoder, ParamLayout& layout);

    /// sums [2] f64 += { sum of cross-entropies in nats, positions whose largest logit is the target's }.
    void evaluate(const StepContext& step, const ParamView& weights, const ConstTensor& x, const MlmTargets& what, const Tensor& sums) const;
    /// The same, and the gradient of factor * sum(loss): the word table's (+=) and dx [T, C] (overwritten).
    void forward_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& x,
                          const MlmTargets& what, const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    /// Logits [M, v] of this rank's part of the vocabulary, accumulator dtype; no dropout.
    Tensor logits(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& rows) const;

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
    /// From gathered rows to what meets the word table: themselves without a transform.
    Tensor transform(const StepContext& step, const ParamView& weights, const Tensor& rows, Transformed& saved) const;
    /// Gradient of the rows from that of the transformed ones, which it overwrites.
    Tensor transform_backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& rows, const Transformed& saved, const Tensor& d) const;
    void run(const StepContext& step, const ParamView& weights, const ParamView* grads, const ConstTensor& x, const MlmTargets& what,
             const Scalar& factor, const Tensor& dx, const Tensor& sums) const;
    BlockStyle style_;
    ParamId word_;
    std::int64_t first_id_;
    double dropout_;
    std::optional<Transform> transform_;
};

}  // namespace rf
