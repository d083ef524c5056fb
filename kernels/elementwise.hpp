#pragma once

#include "core/stream.hpp"

namespace rf {

/// y += x, flat, same dtype: the node of the lane tree. Each element is one addition, so the order is the tree's.
struct Add {
    ConstTensor x;
    Tensor y;
};
void add(Stream& stream, const Add& args);

/// y += factor / divisor * x, flat, same dtype; where the divisor is 0 (the norm of a gradient of nothing), nothing is added.
struct AddScaled {
    ConstTensor x;
    Tensor y;
    Scalar factor = 1;
    Scalar divisor = 1;
};
void add_scaled(Stream& stream, const AddScaled& args);

/// y = x converted (f32 <-> bf16, f64 <-> f32, or a plain copy), round to nearest even.
struct Cast {
    ConstTensor x;
    Tensor y;
};
void cast(Stream& stream, const Cast& args);

/// y = 0.
void fill_zero(Stream& stream, const Tensor& y);

/// The bytes of `from` to `to`, in stream order; sizes agree, dtypes do not matter. On a GPU host memory must be pinned.
void copy(Stream& stream, const ConstTensor& from, const Tensor& to);

namespace cuda {
void add(Stream& stream, const Add& args);
void add_scaled(Stream& stream, const AddScaled& args);
void cast(Stream& stream, const Cast& args);
}  // namespace cuda

}  // namespace rf
