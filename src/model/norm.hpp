#pragma once
/// y = norm(x + alpha dropout(f)) as the model's style has it: the bare RMS norm of RoFormerV2, or layer or RMS normalisation with or without gain
/// and bias.

#include "model/step.hpp"
#include "params/layout.hpp"

#include <string>

namespace rf {

class Norm {
public:
    Norm(const ModelConfig& model, const std::string& scope, ParamLayout& layout);
    struct Saved {
        Tensor y;           ///< [T, C]
        Tensor inv;         ///< [T] 1 / rms or 1 / standard deviation
        Tensor normalised;  ///< [T, C] before gain and bias; not of the bare norm
    };
    /// What is normalised: without x it is dropout(f).
    struct Input {
        ConstTensor x;
        Scalar alpha = 1;
        Dropout dropout;
    };
    /// Overwrites f. The result goes to `y` where that is given.
    Tensor forward(const StepContext& step, const ParamView& weights, const Input& input, const Tensor& f, Saved& saved, const Tensor& y = {}) const;
    /// dx is the residual path's share (absent without x); df what goes into the branch. `input.x` is not read.
    void backward(const StepContext& step, const ParamView& weights, const ParamView& grads, const Input& input, const ConstTensor& dy, const Saved& saved,
                  const Tensor& dx, const Tensor& df) const;

private:
    BlockStyle style_;
    double epsilon_;
    ParamId gain_;  ///< [C], of styles that have one
    ParamId bias_;  ///< [C], likewise
};

}  // namespace rf
