#pragma once

#include "kernels/dropout.hpp"

namespace rf {

/// context = dropout(softmax(scale * Q Kᵀ)) V inside each sequence of a packed batch; no mask, no padding. With a
/// `rotary` table q and k are turned by their position in the sequence as they are read (kernels/rotary.hpp), and their
/// gradients are turned back as they are written: qkv itself stays as the product left it.
/// Tokens from cu_seqlens[S] on belong to no sequence: their context and d_qkv are zero, their log_sum is not written.
/// Never holds more than one block of rows of one head's probabilities per thread. Deterministic. Sums in f32.
/// With bf16 storage, turned q and k, probabilities and the gradients of scores are rounded to bf16 before they are multiplied where products are those of tensor cores or of tiles
/// (GPU; simd/tiles.hpp): a score of about 1 moves by 2^-9.
/// Dropout bits of query row i: as in dropout.hpp with element = key position, detail = detail * 256 + global head.
struct Attention {
    ConstTensor qkv;          ///< [T, 3, h, D]
    ConstTensor rotary;       ///< [P, D/2, 2] cos and sin, accumulator dtype, P >= the longest sequence; absent: no turning
    ConstTensor cu_seqlens;   ///< [S+1] i32, first token of each sequence
    ConstTensor sample;       ///< [S] i32, needed when dropout is active
    Tensor context;           ///< [T, h, D] out
    Tensor log_sum;           ///< [h, T] out, accumulator dtype: log sum_j exp(scale q_i k_j); saved for backward
    double scale = 1;
    std::int64_t first_head = 0;  ///< global number of this rank's first head
    std::int64_t longest = 0;     ///< no sequence is longer; 0: not known (then T)
    Dropout dropout;
};
void attention(Stream& stream, const Attention& args);

/// d_qkv (overwritten) from d_context; probabilities are recomputed from log_sum.
struct AttentionBackward {
    ConstTensor qkv;
    ConstTensor rotary;
    ConstTensor cu_seqlens;
    ConstTensor sample;
    ConstTensor context;
    ConstTensor log_sum;
    ConstTensor d_context;    ///< [T, h, D]
    Tensor d_qkv;             ///< [T, 3, h, D] out
    Tensor scratch;           ///< [h, T] accumulator dtype: sum_d d_context context of each row
    double scale = 1;
    std::int64_t first_head = 0;
    std::int64_t longest = 0;
    Dropout dropout;
};
void attention_backward(Stream& stream, const AttentionBackward& args);

namespace cuda {
void attention(Stream& stream, const Attention& args);
void attention_backward(Stream& stream, const AttentionBackward& args);
}  // namespace cuda

}  // namespace rf
