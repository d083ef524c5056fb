#pragma once

#include "kernels/dropout.hpp"

namespace rf {

/// z = x + alpha * dropout(f);  n = (z - mean(z)) / sqrt(variance(z) + epsilon) per token;  y = gain * n + bias.
/// Layer normalisation (Ba, Kiros & Hinton 2016), as BERT and RoFormer have it after both branches and the embedding. Without `centre` the mean is
/// taken as 0: root mean square normalisation with a gain (Zhang & Sennrich 2019). Without `x`: z = dropout(f) (embedding; alpha unused).
/// The bare RMS norm of RoFormerV2 is `add_norm`. Deterministic. Sums in f32 (f64 for f64).
struct LayerNorm {
    ConstTensor x;         ///< [T, C] or absent
    ConstTensor f;         ///< [T, C]
    ConstTensor gain;      ///< [C] or absent: 1
    ConstTensor bias;      ///< [C] or absent: 0
    Tensor normalised;     ///< [T, C] out: n, saved for backward; may be f
    Tensor y;              ///< [T, C] out; may be x, and `normalised` where gain and bias are absent
    Tensor inv_std;        ///< [T] out, accumulator dtype; saved for backward
    Scalar alpha = 1;
    bool centre = true;
    double epsilon = 1e-12;
    Dropout dropout;
    TokenOrigin origin;    ///< needed when dropout is active
};
void layer_norm(Stream& stream, const LayerNorm& args);

/// g = gain * dy;  dz = (g - mean(g) - n * mean(g * n)) * inv_std, mean(g) only with `centre`;  dx = dz; df = alpha * dropout'(dz);
/// d_gain += sum over tokens of dy * n;  d_bias += sum over tokens of dy: in a fixed order.
/// dx may be dy; df may be dy when dx is absent or another tensor.
struct LayerNormBackward {
    ConstTensor dy;          ///< [T, C]
    ConstTensor normalised;  ///< [T, C]
    ConstTensor inv_std;     ///< [T]
    ConstTensor gain;        ///< [C] or absent
    Tensor dx;               ///< [T, C] out, or absent (embedding)
    Tensor df;               ///< [T, C] out
    Tensor d_gain;           ///< [C] accumulator dtype, +=, or absent
    Tensor d_bias;           ///< [C] accumulator dtype, +=, or absent
    Scalar alpha = 1;
    bool centre = true;
    Dropout dropout;
    TokenOrigin origin;
};
void layer_norm_backward(Stream& stream, const LayerNormBackward& args);

namespace cuda {
void layer_norm(Stream& stream, const LayerNorm& args);
void layer_norm_backward(Stream& stream, const LayerNormBackward& args);
}  // namespace cuda

}  // namespace rf
