#pragma once

#include "kernels/dropout.hpp"

namespace rf {

/// context = dropout(softmax(scale * Q Kᵀ)) V inside each sequence of a packed batch; no mask, no padding.
/// Never holds more than one block of rows of one head's probabilities per thread. Deterministic. Sums in f32.
/// Dropout bits of query row i: as in dropout.hpp with element = key position, detail = detail * 256 + global head.
struct Attention {
    ConstTensor qkv;          ///< [T, 3, h, D], q and k rotated
    ConstTensor cu_seqlens;   ///< [S+1] i32, first token of each sequence
    ConstTensor sample;       ///< [S] i32, needed when dropout is active
    Tensor context;           ///< [T, h, D] out
    Tensor log_sum;           ///< [h, T] out, accumulator dtype: log sum_j exp(scale q_i k_j); saved for backward
    double scale = 1;
    std::int64_t first_head = 0;  ///< global number of this rank's first head
    Dropout dropout;
};
void attention(Stream& stream, const Attention& args);

/// d_qkv (overwritten) from d_context; probabilities are recomputed from log_sum.
struct AttentionBackward {
    ConstTensor qkv;
    ConstTensor cu_seqlens;
    ConstTensor sample;
    ConstTensor context;
    ConstTensor log_sum;
    ConstTensor d_context;    ///< [T, h, D]
    Tensor d_qkv;             ///< [T, 3, h, D] out
    double scale = 1;
    std::int64_t first_head = 0;
    Dropout dropout;
};
void attention_backward(Stream& stream, const AttentionBackward& args);

}  // namespace rf
