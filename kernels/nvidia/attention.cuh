#pragma once
/// What the attention kernels share: their arguments, which rows of which sequence and head a block works on, rows that
/// belong to no sequence.

#include "kernels/attention.hpp"
#include "kernels/nvidia/row.cuh"

#include <algorithm>

namespace rf::device {

/// One call, forward or backward. A grid holds blocks (rows, head, sequence) as if all sequences were the longest (those past
/// a sequence's end leave at once); layers z from `sequences` on clear the tokens after the last sequence.
template <class T>
struct AttentionProblem {
    const T* qkv;             ///< [T, 3, h, D]
    const float* rotary;      ///< [P, D/2, 2] or null
    const std::int32_t* bounds;
    const std::int32_t* sample;
    const T *context, *d_context;  ///< backward: [T, h, D]
    T* out;                   ///< forward: context; backward: d_qkv
    float* log_sum;           ///< [h, T]; written by forward, read by backward
    float* row_sum;           ///< [h, T] backward: d_context . context
    DropArgument drop;        ///< with the stream of head 0
    float scale;
    int tokens, sequences, heads, channels;

    /// Elements from a token to the next one of qkv and of context.
    __device__ std::int64_t qkv_stride() const { return std::int64_t{3} * heads * channels; }
    __device__ std::int64_t stride() const { return std::int64_t{heads} * channels; }
};

inline constexpr int clearing_tokens = 256;

/// Rows `first` … of one head of one sequence of `length` tokens, the first of which is token `begin`.
struct AttentionPlace {
    int head, begin, length, first;
    std::uint32_t sample;
};

/// False: the block has no rows. `Rows`: of one block.
template <int Rows, class Problem>
__device__ inline bool find_place(const Problem& p, AttentionPlace& place) {
    const auto sequence = static_cast<int>(blockIdx.z);
    place.head = static_cast<int>(blockIdx.y);
    place.first = static_cast<int>(blockIdx.x) * Rows;
    place.begin = load(p.bounds + sequence);
    place.length = load(p.bounds + sequence + 1) - place.begin;
    place.sample = p.drop.threshold ? static_cast<std::uint32_t>(load(p.sample + sequence)) : 0;
    return place.first < place.length;
}

template <class Problem>
__device__ inline bool is_clearing(const Problem& p) {
    return static_cast<int>(blockIdx.z) >= p.sequences;
}

/// Zeros in `out`, rows of `row` words, for the clearing block's share of the tokens that belong to no sequence.
template <class Word, class Problem>
__device__ inline void clear_rest(const Problem& p, Word* out, std::int64_t row) {
    const std::int64_t block = (std::int64_t{blockIdx.z} - p.sequences) * gridDim.y * gridDim.x + std::int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
    const std::int64_t from = block * clearing_tokens, begin = std::max<std::int64_t>(from, load(p.bounds + p.sequences));
    const std::int64_t end = std::min<std::int64_t>(from + clearing_tokens, p.tokens);
    for (std::int64_t i = begin * row + threadIdx.x; i < end * row; i += blockDim.x) store(out + i, Word{});
}

/// The dropout of one head's query rows.
template <class Problem>
__device__ inline DropArgument head_dropout(const Problem& p, int head) {
    DropArgument drop = p.drop;
    drop.stream = (drop.stream & 0xff000000U) | ((drop.stream + static_cast<std::uint32_t>(head)) & 0xffffffU);
    return drop;
}

inline constexpr float log2_e = 1.44269504088896340736F, ln_2 = 0.69314718055994530942F;

}  // namespace rf::device
