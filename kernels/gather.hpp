#pragma once

#include "kernels/dropout.hpp"

namespace rf {

/// y_m = dropout(x_rows[m]), or 0 where the row is negative (padding of a captured step): the tokens a head looks at.
struct Gather {
    ConstTensor x;         ///< [T, C]
    ConstTensor rows;      ///< [M] i32, rising, each at most once; negative ones last
    Tensor y;              ///< [M, C] out
    Dropout dropout;
    TokenOrigin origin;    ///< of the T tokens
};
void gather(Stream& stream, const Gather& args);

/// dx (overwritten) = 0 except dx_rows[m] = dropout'(dy_m).
struct GatherBackward {
    ConstTensor dy;        ///< [M, C]
    ConstTensor rows;
    Tensor dx;             ///< [T, C] out
    Dropout dropout;
    TokenOrigin origin;
};
void gather_backward(Stream& stream, const GatherBackward& args);

namespace cuda {
void gather(Stream& stream, const Gather& args);
void gather_backward(Stream& stream, const GatherBackward& args);
}  // namespace cuda

}  // namespace rf
