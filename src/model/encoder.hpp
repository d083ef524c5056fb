#pragma once
/// RoFormerV2: embedding, then L layers of attention and feed-forward, each as y = norm(x + alpha f(x)).
/// Forward keeps what backward needs in `Saved`, all of it in the step's arena.
/// Parameter gradients accumulate (+=), activation gradients overwrite (=).

#include "model/step.hpp"
#include "params/layout.hpp"

#include <string>
#include <vector>

namespace rf {

/// f(x) = concat_h(softmax(q k / sqrt(D)) v) Wo, heads split over the tensor group.
class SelfAttention {
public:
    SelfAttention(const ModelConfig& model, std::int64_t layer, ParamLayout& layout);
    struct Saved {
        Tensor qkv;      ///< [T, 3, h, D]
        Tensor context;  ///< [T, h, D]
        Tensor log_sum;  ///< [h, T]
    };
    /// f [T, C], complete on every tensor rank.
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, Saved& saved) const;
    /// dx [T, C] from df, complete on every tensor rank.
    Tensor backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                    const ConstTensor& x, const Saved& saved) const;

private:
    std::int64_t layer_, heads_, first_head_, head_size_;
    ParamId qkv_;     ///< [3, H, D, C] split on 1
    ParamId output_;  ///< [C, H, D] split on 1
};

/// f(x) = relu(x W1) W2, inner units split over the tensor group.
class FeedForward {
public:
    FeedForward(const ModelConfig& model, std::int64_t layer, ParamLayout& layout);
    struct Saved {
        Tensor activation;  ///< [T, f] after relu
        Tensor mask;        ///< [T, relu_mask_bytes(f)]: where it is positive
    };
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, Saved& saved) const;
    Tensor backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& df,
                    const ConstTensor& x, const Saved& saved) const;

private:
    std::int64_t inner_;
    ParamId up_;    ///< [F, C] split on 0
    ParamId down_;  ///< [C, F] split on 1
};

/// y = norm(x + alpha dropout(f)), or y = x + a dropout(f) with a trained a (ReZero).
class Residual {
public:
    Residual(const ModelConfig& model, std::int64_t layer, int branch, ParamLayout& layout);
    struct Saved {
        Tensor y;        ///< [T, C]
        Tensor inv_rms;  ///< [T]
        Tensor f;        ///< [T, C], ReZero only
    };
    /// Overwrites f with y in the common case.
    Tensor forward(const StepContext& step, const ParamView& weights, const ConstTensor& x, const Tensor& f, Saved& saved) const;
    /// dx is the residual path's share; df what goes into the branch.
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const ConstTensor& dy, const Saved& saved,
                  const Tensor& dx, const Tensor& df) const;

private:
    bool rezero_;
    double epsilon_, dropout_;
    std::uint32_t dropout_number_;
    ParamId scale_;  ///< [1], ReZero only
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
        Tensor embedded;  ///< [T, C]
        Tensor inv_rms;   ///< [T]
        std::vector<LayerSaved> layers;
    };

    /// Last hidden states [T, C]. `saved.layers[i].second.y` are the outputs of every layer.
    Tensor forward(const StepContext& step, const ParamView& weights, Saved& saved) const;
    /// `dy` [T, C] is overwritten.
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const Tensor& dy, const Saved& saved) const;

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
    double epsilon_, dropout_;
    std::int64_t first_id_;
    ParamId word_;     ///< [V, C] split on 0
    ParamId segment_;  ///< [types, C]
    std::vector<Layer> layers_;
};

}  // namespace rf
