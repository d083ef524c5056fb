#pragma once

#include "core/stream.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

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

/// Tokens grouped by id: what makes the gradient of a table a sum in a fixed order. Made on the host, with the batch.
struct IdGroups {
    std::vector<std::int32_t> tokens;  ///< [T] ordered by id, and in batch order within one
    std::vector<std::int32_t> begin;   ///< [U+1] first of each id in `tokens`; may repeat its last value (empty groups)
};
IdGroups group_by_id(std::span<const std::int32_t> ids);

/// Tokens whose rows are summed by one warp for the segment table.
constexpr std::int64_t embedding_segment_tokens = 128;
/// Rows of scratch memory that the gradient of T tokens needs on a GPU: sums of 32 tokens of one id, and after them sums of
/// 128 tokens of one segment.
constexpr std::int64_t embedding_scratch_rows(std::int64_t tokens, std::int64_t types) {
    return std::max((tokens + 31) / 32, types * ((tokens + embedding_segment_tokens - 1) / embedding_segment_tokens));
}

/// d_word += rows of dy by id, d_segment += rows of dy by segment. Deterministic: each row of a table sums its
/// tokens in batch order (on a GPU: pieces of 32 tokens first, then the pieces in order). Gradients have the accumulator dtype.
struct EmbeddingBackward {
    ConstTensor ids;
    ConstTensor segments;
    ConstTensor tokens;        ///< [T] i32, IdGroups::tokens
    ConstTensor begin;         ///< [U+1] i32, IdGroups::begin
    ConstTensor dy;            ///< [T, C]
    Tensor d_word;             ///< [v, C] +=
    Tensor d_segment;          ///< [types, C] += or absent
    std::int64_t first_id = 0;
    Tensor scratch;            ///< [embedding_scratch_rows, C] f32, on a GPU only
};
void embedding_backward(Stream& stream, const EmbeddingBackward& args);

namespace cuda {
void embedding(Stream& stream, const Embedding& args);
void embedding_backward(Stream& stream, const EmbeddingBackward& args);
}  // namespace cuda

}  // namespace rf
