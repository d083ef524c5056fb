#pragma once
/// Scores of all pairs of tokens inside each sequence, for L types: GlobalPointer and EfficientGlobalPointer (Su, "GlobalPointer", 2021 and
/// "Efficient GlobalPointer", 2022; as bert4keras runs them). G groups of queries and keys: one a type, or one for all types.
///
///     score(l, i, j) = q_i · k_j / sqrt(D) + (bias[i, 2 l + 1] + bias[j, 2 l]) / 2
///
/// i is the pair's start, j its end, both counted from the sequence's first token. A sequence's n² L scores are never stored: a thread (on a
/// GPU a block) works on one sequence's at a time. Sums have one order: no bit depends on threads. All numbers are f32, or all f64 (CPU).

#include "core/stream.hpp"

namespace rf {

/// A projection [T, G · 2 D] becomes queries (divided by sqrt(D)) and keys, both turned by the angle of their position.
struct TokenPairVectors {
    ConstTensor x;             ///< [T, G · 2 D]
    ConstTensor position;      ///< [T] i32, inside the sequence
    ConstTensor rotary;        ///< [P, D/2, 2]
    bool interleaved = false;  ///< even channels are q and odd ones k (then G = 1); else the first D of a group's 2 D are q
    Tensor q;                  ///< [G, T, D] out
    Tensor k;                  ///< [G, T, D] out
};
void token_pair_vectors(Stream& stream, const TokenPairVectors& args);

struct TokenPairVectorsBackward {
    ConstTensor dq, dk;        ///< [G, T, D]
    ConstTensor position, rotary;
    bool interleaved = false;
    Tensor dx;                 ///< [T, G · 2 D] out, overwritten
};
void token_pair_vectors_backward(Stream& stream, const TokenPairVectorsBackward& args);

enum class TokenPairKind {
    softmax,     ///< one cell is right: cross-entropy over the cells of a sequence and type
    multilabel,  ///< any number of cells: log(1 + sum of e^s over wrong ones) + log(1 + sum of e^-s over right ones) (Su 2020)
};

/// What the ops below speak of. A cell (l, i, j) is left out unless both tokens are visible and, for the first `ordered` types, i <= j.
struct TokenPairs {
    ConstTensor q, k;              ///< [G, T, D], G = 1 or L
    ConstTensor bias;              ///< [T, 2 L], or absent
    ConstTensor cu_seqlens;        ///< [S+1]
    ConstTensor visible;           ///< [S, 2] i32: first token and end of those that may be ends of a pair, from the sequence's first
    bool first_is_visible = false; ///< token 0 as well
    std::int64_t types = 1;        ///< L
    std::int64_t ordered = 1;      ///< types whose pairs must not run backwards; the rest may
    std::int64_t longest = 0;      ///< no sequence is longer
    TokenPairKind kind = TokenPairKind::softmax;
    ConstTensor cells;             ///< [Q, 3] i32 (type, start, end): the right ones, sorted within a sequence; absent: none. softmax: none means (0, 0)
    ConstTensor cell_begin;        ///< [S+1] i32
};

/// Per sequence and type, stats [4, L, S]:
///   softmax:    log of the sum of e^s; the right cell's score; the largest score; its cell i n + j (the lowest of equals, -1: no cell)
///   multilabel: log(1 + sum of e^s over wrong cells); log(1 + sum of e^-s over right ones); the largest wrong s; the largest right -s
/// sums [2] f64 += { sum over sequences of the mean over types of the loss; sequences whose answer is right: the largest score is the
/// right cell's, or exactly the right cells have s > 0, in every type }. Empty sequences do not count.
struct TokenPairLoss {
    TokenPairs pairs;
    Tensor stats;  ///< [4, L, S] out
    Tensor rows;   ///< [4, L, T] scratch on a GPU; absent on the CPU
    Tensor sums;   ///< [2] f64, +=; absent: stats alone
};
void token_pair_loss(Stream& stream, const TokenPairLoss& args);

/// Gradients of factor * sums[0]; all are overwritten.
struct TokenPairBackward {
    TokenPairs pairs;
    ConstTensor stats;  ///< [4, L, S]
    Scalar factor = 1;  ///< 1 / sequences of the whole global batch
    Tensor dq, dk;      ///< [G, T, D] out
    Tensor d_bias;      ///< [T, 2 L] out, where there is a bias
};
void token_pair_backward(Stream& stream, const TokenPairBackward& args);

/// Cells with score > 0, counted first (`found` absent), then listed: `counts` [L, T] of those that start at a token (0 for tokens of
/// no sequence); those of type l and token t stand from begin[l, t] on, by rising end.
struct TokenPairCells {
    TokenPairs pairs;
    Tensor counts;      ///< [L, T] i32 out
    ConstTensor begin;  ///< [L, T] i32
    Tensor found;       ///< [N, 3] i32 out: type, start, end
    Tensor scores;      ///< [N] out
};
void token_pair_cells(Stream& stream, const TokenPairCells& args);

namespace cuda {
void token_pair_vectors(Stream& stream, const TokenPairVectors& args);
void token_pair_vectors_backward(Stream& stream, const TokenPairVectorsBackward& args);
void token_pair_loss(Stream& stream, const TokenPairLoss& args);
void token_pair_backward(Stream& stream, const TokenPairBackward& args);
void token_pair_cells(Stream& stream, const TokenPairCells& args);
}  // namespace cuda

}  // namespace rf
