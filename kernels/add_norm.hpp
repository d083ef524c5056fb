#pragma once

#include "kernels/dropout.hpp"

namespace rf {

/// z = x + alpha * dropout(f);  y = z / sqrt(mean_j(z_j^2) + epsilon) per token (bare RMS norm), or y = z when
/// `normalise` is off (ReZero). Without `x`: z = dropout(f) (embedding; alpha unused). y may be x or f.
/// The article's post-norm with the alpha warm-up (RoFormerV2, 2022); ReZero: Bachlechner et al. 2020.
/// Deterministic. Sums in f32 (f64 for f64).
struct AddNorm {
    ConstTensor x;         ///< [T, C] or absent
    ConstTensor f;         ///< [T, C]
    Tensor y;              ///< [T, C] out
    Tensor inv_rms;        ///< [T] out, accumulator dtype; saved for backward; absent when not normalising
    Scalar alpha = 1;
    bool normalise = true;
    double epsilon = 1e-12;
    Dropout dropout;
    TokenOrigin origin;    ///< needed when dropout is active
};
void add_norm(Stream& stream, const AddNorm& args);

/// dz = (dy - y * mean(dy * y)) * inv_rms (or dy when not normalising); dx = dz; df = alpha * dropout'(dz).
/// d_alpha += sum(dz * dropout(f)) where asked for (fixed order: tokens in blocks of 64, blocks in order; on a GPU each token
/// first, into `scratch`, then the tokens in a fixed tree).
/// dx may be dy; df may be dy when dx is absent or another tensor.
struct AddNormBackward {
    ConstTensor dy;        ///< [T, C]
    ConstTensor y;         ///< [T, C] output of the forward pass
    ConstTensor inv_rms;   ///< [T]
    ConstTensor f;         ///< [T, C], only for d_alpha
    Tensor dx;             ///< [T, C] out, or absent (embedding)
    Tensor df;             ///< [T, C] out
    Tensor d_alpha;        ///< [1] accumulator dtype, +=, or absent
    Tensor scratch;        ///< [T] f32, on a GPU where d_alpha is asked for
    Scalar alpha = 1;
    bool normalise = true;
    Dropout dropout;
    TokenOrigin origin;
};
void add_norm_backward(Stream& stream, const AddNormBackward& args);

namespace cuda {
void add_norm(Stream& stream, const AddNorm& args);
void add_norm_backward(Stream& stream, const AddNormBackward& args);
}  // namespace cuda

}  // namespace rf
