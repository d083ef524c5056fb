#pragma once

#include "core/stream.hpp"

namespace rf {

/// y = max(x, 0). y may be x.
struct Relu {
    ConstTensor x;
    Tensor y;
};
void relu(Stream& stream, const Relu& args);

/// dx = y > 0 ? dy : 0, from the output of the forward pass. dx may be dy.
struct ReluBackward {
    ConstTensor y;
    ConstTensor dy;
    Tensor dx;
};
void relu_backward(Stream& stream, const ReluBackward& args);

}  // namespace rf
