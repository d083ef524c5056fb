#pragma once

#include "core/stream.hpp"

namespace rf {

/// e_t = word[id_t - first_id] + segment[segment_t]. Rows of ids outside this rank's part of the table count as zero
/// (the tensor group's sum completes them); `segment` is given on one rank of the group only.
struct Embedding {
    ConstTensor ids;           ///< [T] i32
    ConstTensor segments;      ///< [T] i32, or absent: all 0
    ConstTensor word;          ///< [v, C]
    ConstTensor segment;       ///< [types, C] or absent
    Tensor y;                  ///< [T, C] out
    std::int64_t first_id = 0;
};
void embedding(Stream& stream, const Embedding& args);

/// d_word += rows of dy by id, d_segment += rows of dy by segment. Deterministic: each row of a table sums its
/// tokens in batch order. Gradients have the accumulator dtype.
struct EmbeddingBackward {
    ConstTensor ids;
    ConstTensor segments;
    ConstTensor dy;            ///< [T, C]
    Tensor d_word;             ///< [v, C] +=
    Tensor d_segment;          ///< [types, C] += or absent
    std::int64_t first_id = 0;
};
void embedding_backward(Stream& stream, const EmbeddingBackward& args);

}  // namespace rf
