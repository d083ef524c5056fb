#pragma once
/// The two relu epilogues of gemm as steps of their own, for shapes that cuBLASLt does not fuse.

#include "kernels/gemm.hpp"

namespace rf::cuda {

/// c = max(c, 0); mask says where c > 0 (bits past column n are 0). c [m, n], mask as in Gemm.
void relu_to_mask(Stream& stream, const Tensor& c, const Tensor& mask);
/// c = 0 where the mask says so.
void relu_by_mask(Stream& stream, const Tensor& c, const ConstTensor& mask);

}  // namespace rf::cuda
