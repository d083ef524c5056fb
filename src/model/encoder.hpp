#pragma once
/// RoFormerV2 and the encoders it is compared with (BlockStyle): embedding, then L layers of attention and feed-forward, each as y = norm(x + alpha f(x)).
/// Behind its attention the last layer works on the rows that are read alone (BatchView::read): what is not computed would meet no loss.
/// Forward keeps what backward needs in `Saved`, all of it in the step's arena.
/// Parameter gradients accumulate (+=), but for those of products in a fresh step; activation gradients overwrite (=).

#include "kernels/activation.hpp"
#include "model/norm.hpp"

#include <array>
#include <optional>
#include <vector>

namespace rf {

/// f(x) = concat_h(softmax(q k / sqrt(D)) v) Wo + bo, heads split over the tensor group; biases of styles that have them.
class SelfAttention {
public:
    SelfAttention(const ModelConfig& model, std::int64_t layer, ParamLayout& layout);
    struct Saved {
        Tensor qkv;      ///< [T, 3, h, D]
        Tensor context;  ///< [T, h, D]
        Tensor log_sum;  ///< [h, T]
        Tensor read;     ///< [M, h D] rows of the context that are read; all of it where no rows are given
    };
    /// f of all tokens or of the rows `read` [M] of them: [T, C] or [M, C], complete on every tensor rank.
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const ConstTensor& read, Saved& saved) const;
    /// dx [T, C] from df, complete on every tensor rank.
    Tensor backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                    const ConstTensor& x, const ConstTensor& read, const Saved& saved) const;

    std::array<ParamId, 2> weights() const { return {qkv_, output_}; }

private:
    std::int64_t layer_, heads_, first_head_, head_size_;
    bool biases_;
    ParamId qkv_;     ///< [3, H, D, C] split on 1
    ParamId output_;  ///< [C, H, D] split on 1
    ParamId qkv_bias_;     ///< [3, H, D] split on 1
    ParamId output_bias_;  ///< [C]
};

/// f(x) = relu(x W1) W2, or gelu(x W1 + b1) W2 + b2 and what is between; inner units split over the tensor group.
class FeedForward {
public:
    FeedForward(const ModelConfig& model, std::int64_t layer, ParamLayout& layout);
    struct Saved {
        Tensor activation;  ///< [T, f]
        Tensor mask;        ///< [T, relu_mask_bytes(f)]: where it is positive, of the fused relu
        Tensor before;      ///< [T, f] before the activation, otherwise
    };
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, Saved& saved) const;
    Tensor backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                    const ConstTensor& x, const Saved& saved) const;

    std::array<ParamId, 2> weights() const { return {up_, down_}; }

private:
    Activation activation() const { return style_.gelu ? Activation::gelu : Activation::relu; }
    std::int64_t inner_;
    BlockStyle style_;
    ParamId up_;    ///< [F, C] split on 0
    ParamId down_;  ///< [C, F] split on 1
    ParamId up_bias_;    ///< [F] split on 0
    ParamId down_bias_;  ///< [C]
};

/// y = norm(x + alpha dropout(f)), or y = x + a dropout(f) with a trained a (ReZero).
class Residual {
public:
    Residual(const ModelConfig& model, std::int64_t layer, int branch, ParamLayout& layout);
    struct Saved {
        Norm::Saved norm;  ///< its y [T, C] is the block's
        Tensor f;          ///< [T, C], ReZero only
    };
    /// Overwrites f, in the common case with the result; that goes to `y` where it is given.
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const Tensor& f, Saved& saved, const Tensor& y = {}) const;
    /// dx is the residual path's share; df what goes into the branch.
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& dy, const Saved& saved,
                  const Tensor& dx, const Tensor& df) const;

private:
    Norm::Input input(const StepContext& step, const ConstTensor& x) const;
    bool rezero_;
    double dropout_;
    std::uint32_t dropout_number_;
    ParamId scale_;             ///< [1], ReZero only
    std::optional<Norm> norm_;  ///< otherwise
};

class Encoder {
public:
    Encoder(const ModelConfig& model, ParamLayout& layout);

    struct LayerSaved {
        ConstTensor x;
        SelfAttention::Saved attention;
        Residual::Saved first;
        FeedForward::Saved feed_forward;
        Residual::Saved second;
    };
    struct Saved {
        Norm::Saved embedded;
        std::vector<LayerSaved> layers;
    };

    /// Last hidden states: [T, C], or [M, C] of the tokens that the batch names as read. `saved.layers[i].second.norm.y` are the outputs of every
    /// layer; nothing in `saved` lasts where the step does not keep it.
    Tensor forward(const StepContext& step, const ParamView& weights, Saved& saved) const;
    /// `dy`, of forward's result, is overwritten.
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const Tensor& dy, const Saved& saved) const;

    /// Parameters whose gradient is one product of a step's backward: in a fresh step it overwrites what was there, and need not be cleared before.
    std::vector<ParamId> overwritten() const;

    ParamId word_table() const { return word_; }
    std::int64_t first_id() const { return first_id_; }

private:
    struct Layer {
        std::int64_t begin;  ///< its first element of the flat buffers; those of the layers above follow
        SelfAttention attention;
        Residual first;
        FeedForward feed_forward;
        Residual second;
    };
    /// Rows that layer i reads of its context: of the last one those that the batch names.
    ConstTensor read_by(std::size_t i, const StepContext& step) const { return i + 1 == layers_.size() ? step.batch.read : ConstTensor{}; }
    BlockStyle style_;
    double dropout_;
    std::int64_t first_id_;
    ParamId word_;      ///< [V, C] split on 0
    ParamId segment_;   ///< [types, C]
    ParamId position_;  ///< [P, C], of learned positions
    Norm norm_;
    std::vector<Layer> layers_;
};

}  // namespace rf
