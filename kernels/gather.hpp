#pragma once

#include "core/stream.hpp"

namespace rf {

/// y_m = x_rows[m], or 0 where the row is negative (padding of a captured step): the tokens that the last layer is read at.
struct Gather {
    ConstTensor x;         ///< [T, C]
    ConstTensor rows;      ///< [M] i32, rising, each at most once; negative ones last
    Tensor y;              ///< [M, C] out
};
void gather(Stream& stream, const Gather& args);

/// dx (overwritten) = 0 except dx_rows[m] = dy_m.
struct GatherBackward {
    ConstTensor dy;        ///< [M, C]
    ConstTensor rows;
    Tensor dx;             ///< [T, C] out
};
void gather_backward(Stream& stream, const GatherBackward& args);

namespace cuda {
void gather(Stream& stream, const Gather& args);
void gather_backward(Stream& stream, const GatherBackward& args);
}  // namespace cuda

}  // namespace rf
