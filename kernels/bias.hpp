#pragma once

#include "core/stream.hpp"

namespace rf {

/// y_m += bias, for every row.
struct AddBias {
    ConstTensor bias;  ///< [L]
    Tensor y;          ///< [M, L] of the accumulator dtype
};
void add_bias(Stream& stream, const AddBias& args);

/// d_bias += the sum of dy's rows, in a fixed order.
struct AddBiasBackward {
    ConstTensor dy;  ///< [M, L]
    Tensor d_bias;   ///< [L] of the accumulator dtype
};
void add_bias_backward(Stream& stream, const AddBiasBackward& args);

namespace cuda {
void add_bias(Stream& stream, const AddBias& args);
void add_bias_backward(Stream& stream, const AddBiasBackward& args);
}  // namespace cuda

}  // namespace rf
