#pragma once

#include "core/stream.hpp"

namespace rf {

/// Fills table [P, D/2, 2] (f32 or f64) with cos and sin of m * base^(-2i/D), worked out in f64, m = 0 … P-1.
/// base 10000: Su et al., "RoFormer", 2021. Attention turns pairs (2i, 2i+1) of q and k by the angle of their position:
/// y_2i = x_2i cos - x_2i+1 sin, y_2i+1 = x_2i+1 cos + x_2i sin, and gradients by the opposite angle.
void rotary_table(const Tensor& table, double base = 10000);

}  // namespace rf
