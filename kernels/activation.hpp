#pragma once

#include "core/stream.hpp"

namespace rf {

/// none: x;  relu: max(x, 0);  gelu: x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016, by the error function; in f32
/// formula 7.1.26 of Abramowitz & Stegun, within 1.5e-7).
enum class Activation { none, relu, gelu };

/// x += bias, then y = activation(x). Deterministic.
struct BiasActivation {
    ConstTensor bias;  ///< [L] or absent
    Tensor x;          ///< [M, L] in: a product; out: what backward needs
    Tensor y;          ///< [M, L] out, another tensor; absent for `none`
    Activation activation = Activation::none;
};
void bias_activation(Stream& stream, const BiasActivation& args);

/// dx = dy * activation'(x), x as bias_activation left it. dx may be dy. The bias' gradient: add_bias_backward of dx.
struct ActivationBackward {
    ConstTensor x;     ///< [M, L]
    ConstTensor dy;    ///< [M, L]
    Tensor dx;         ///< [M, L] out
    Activation activation = Activation::gelu;
};
void activation_backward(Stream& stream, const ActivationBackward& args);

namespace cuda {
void bias_activation(Stream& stream, const BiasActivation& args);
void activation_backward(Stream& stream, const ActivationBackward& args);
}  // namespace cuda

}  // namespace rf
