#include "model/norm.hpp"

#include "kernels/add_norm.hpp"
#include "kernels/layer_norm.hpp"

namespace rf {

Norm::Norm(const ModelConfig& m, const std::string& scope, ParamLayout& layout) : style_(m.style()), epsilon_(m.norm_epsilon) {
    if (!style_.norm_gain) return;
    gain_ = layout.add({.name = scope + "/gain", .shape = {m.hidden_size}, .initial = 1, .decays = false});
    bias_ = layout.add({.name = scope + "/bias", .shape = {m.hidden_size}, .decays = false});
}

Tensor Norm::forward(const StepContext& step, const ParamView& weights, const Input& input, const Tensor& f, Saved& saved, const Tensor& y) const {
    saved.y = y ? y : style_.norm_gain ? step.arena.tensor_like(f) : f;
    saved.inv = step.arena.tensor({f.shape[0]}, accumulator_of(f.dtype));
    saved.normalised = style_.bare_norm() ? Tensor{} : f;
    if (style_.bare_norm()) {
        add_norm(step.stream, {.x = input.x, .f = f, .y = saved.y, .inv_rms = saved.inv, .alpha = input.alpha, .epsilon = epsilon_, .dropout = input.dropout,
                               .origin = step.batch.origin});
        return saved.y;
    }
    layer_norm(step.stream, {.x = input.x,
                             .f = f,
                             .gain = style_.norm_gain ? ConstTensor(weights[gain_]) : ConstTensor{},
                             .bias = style_.norm_gain ? ConstTensor(weights[bias_]) : ConstTensor{},
                             .normalised = saved.normalised,
                             .y = saved.y,
                             .inv_std = saved.inv,
                             .alpha = input.alpha,
                             .centre = style_.centred_norm,
                             .epsilon = epsilon_,
                             .dropout = input.dropout,
                             .origin = step.batch.origin});
    return saved.y;
}

void Norm::backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const Input& input, const ConstTensor& dy, const Saved& saved,
                    const Tensor& dx, const Tensor& df) const {
    if (style_.bare_norm())
        return add_norm_backward(step.stream, {.dy = dy, .y = saved.y, .inv_rms = saved.inv, .dx = dx, .df = df, .alpha = input.alpha, .dropout = input.dropout,
                                               .origin = step.batch.origin});
    layer_norm_backward(step.stream, {.dy = dy,
                                      .normalised = saved.normalised,
                                      .inv_std = saved.inv,
                                      .gain = style_.norm_gain ? ConstTensor(weights[gain_]) : ConstTensor{},
                                      .dx = dx,
                                      .df = df,
                                      .d_gain = style_.norm_gain ? grads[gain_] : Tensor{},
                                      .d_bias = style_.norm_gain ? grads[bias_] : Tensor{},
                                      .alpha = input.alpha,
                                      .centre = style_.centred_norm,
                                      .dropout = input.dropout,
                                      .origin = step.batch.origin});
}

}  // namespace rf
