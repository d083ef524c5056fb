#pragma once

#include "core/stream.hpp"

namespace rf {

/// Fills table [P, D/2, 2] (f32 or f64) with cos and sin of m * base^(-2i/D), worked out in f64, m = 0 … P-1.
/// base 10000: Su et al., "RoFormer", 2021.
void rotary_table(const Tensor& table, double base = 10000);

/// Rotates query and key of every head in place, pairs (2i, 2i+1) by the angle of their position:
/// y_2i = x_2i cos - x_2i+1 sin, y_2i+1 = x_2i+1 cos + x_2i sin. The value part is left alone.
struct Rotary {
    Tensor qkv;            ///< [T, 3, h, D] in and out
    ConstTensor position;  ///< [T] i32
    ConstTensor table;     ///< [P, D/2, 2], accumulator dtype of qkv
};
void rotary(Stream& stream, const Rotary& args);
/// The gradient: rotation by the opposite angle, in place on d_qkv.
void rotary_backward(Stream& stream, const Rotary& args);

}  // namespace rf
