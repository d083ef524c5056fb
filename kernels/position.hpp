#pragma once

#include "core/stream.hpp"

namespace rf {

/// y_t += table[position_t]: learned positions (BERT).
struct AddPosition {
    ConstTensor position;  ///< [T] i32, of each token in its sequence
    ConstTensor table;     ///< [P, C]
    Tensor y;              ///< [T, C]
};
void add_position(Stream& stream, const AddPosition& args);

/// d_table[p] += sum of dy[cu_seqlens[s] + p] over the sequences longer than p, in their order. Tokens after the last sequence do not count.
struct AddPositionBackward {
    ConstTensor cu_seqlens;  ///< [S+1] i32
    ConstTensor dy;          ///< [T, C]
    Tensor d_table;          ///< [P, C] accumulator dtype; no sequence is longer than P
};
void add_position_backward(Stream& stream, const AddPositionBackward& args);

namespace cuda {
void add_position(Stream& stream, const AddPosition& args);
void add_position_backward(Stream& stream, const AddPositionBackward& args);
}  // namespace cuda

}  // namespace rf
