#include "kernels/attention.hpp"

#include "core/op_log.hpp"
#include "kernels/attention_head.hpp"
#include "kernels/simd/tiles.hpp"

#include <cmath>
#include <cstring>
#include <type_traits>

namespace rf {

namespace {

/// What a product works on of n columns.
constexpr std::int64_t whole_columns(std::int64_t n) { return (n + simd::product_columns - 1) / simd::product_columns * simd::product_columns; }

/// C [m, columns of B] = A B or Aᵀ B, over k elements a sum; added to what is there where `accumulate`.
template <class R>
void multiply(const Matrix<R>& a, bool transpose_a, const Matrix<R>& b, Matrix<R>& c, std::int64_t m, std::int64_t k, bool accumulate = false) {
    reals_of<R>().product({.a = a.row(0), .row_a = transpose_a ? 1 : a.ld(), .step_a = transpose_a ? a.ld() : 1, .b = b.row(0), .ldb = b.ld(), .c = c.row(0),
                           .ldc = c.ld(), .m = m, .n = whole_columns(b.columns()), .k = k, .accumulate = accumulate});
}

template <class R>
void transpose(const Matrix<R>& x, std::int64_t rows, Matrix<R>& out) {
    out.reshape(x.columns(), rows);
    if constexpr (std::is_same_v<R, float>) {
        simd::table().transpose(x.row(0), x.ld(), rows, x.columns(), out.row(0), out.ld());
    } else {
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < x.columns(); ++j) out.row(j)[i] = x.row(i)[j];
    }
}

/// Of a thread, kept from call to call.
template <class R>
struct Scratch {
    Matrix<R> q, k, v, k_turned, v_turned, out, d_out, scores, d_scores, dq, dk, dv;
    R shares[query_block];  ///< 1 / the sum of a row of scores
};

template <class T>
void forward(const Attention& a, const Place& p) {
    using R = simd::Real<T>;
    thread_local Scratch<R> w;
    const std::int64_t tokens = a.qkv.shape[0], heads = a.qkv.shape[2], d = a.qkv.shape[3], n = p.length, width = heads * d;
    const T* q = raw<T>(a.qkv) + p.begin * 3 * width + p.head * d;
    for (const int part : {1, 0, 2}) expect(q + part * width, 3 * width, n, d);
    fetch(q + width, 3 * width, n, d, w.k);
    turn(a.rotary, w.k, 0, n, d, R{1});
    transpose(w.k, n, w.k_turned);
    fetch(q + 2 * width, 3 * width, n, d, w.v);
    for (std::int64_t from = 0; from < n; from += query_block) {
        const std::int64_t rows = std::min(query_block, n - from);
        T* const context = raw<T>(a.context) + (p.begin + from) * width + p.head * d;
        expect(context, width, rows, d);
        fetch(q + from * 3 * width, 3 * width, rows, d, w.q);
        turn(a.rotary, w.q, from, rows, d, R{1});
        w.scores.reshape(rows, n);
        w.out.reshape(rows, d);
        multiply(w.q, false, w.k_turned, w.scores, rows, d);
        for (std::int64_t i = 0; i < rows; ++i) {
            const auto row = reals_of<R>().softmax(w.scores.row(i), n, static_cast<R>(a.scale), query_dropout(a, p, from + i));
            raw<R>(a.log_sum)[p.head * tokens + p.begin + from + i] = row.maximum + std::log(row.sum);
            w.shares[i] = 1 / row.sum;
        }
        multiply(w.scores, false, w.v, w.out, rows, n);
        for (std::int64_t i = 0; i < rows; ++i) reals_of<R>().scale(w.out.row(i), d, w.shares[i]);
        put(w.out, rows, d, context, width);
    }
}

template <class T>
void backward(const AttentionBackward& a, const Place& p) {
    using R = simd::Real<T>;
    thread_local Scratch<R> w;
    const std::int64_t tokens = a.qkv.shape[0], heads = a.qkv.shape[2], d = a.qkv.shape[3], n = p.length, width = heads * d;
    const T* q = raw<T>(a.qkv) + p.begin * 3 * width + p.head * d;
    T* dq = raw<T>(a.d_qkv) + p.begin * 3 * width + p.head * d;
    for (const int part : {1, 2, 0}) expect(q + part * width, 3 * width, n, d);
    fetch(q + width, 3 * width, n, d, w.k);
    turn(a.rotary, w.k, 0, n, d, R{1});
    transpose(w.k, n, w.k_turned);
    fetch(q + 2 * width, 3 * width, n, d, w.v);
    transpose(w.v, n, w.v_turned);
    w.dk.reshape(n, d);
    w.dv.reshape(n, d);
    for (std::int64_t from = 0; from < n; from += query_block) {
        const std::int64_t rows = std::min(query_block, n - from), at = (p.begin + from) * width + p.head * d;
        const bool further = from > 0;
        expect(raw<T>(a.context) + at, width, rows, d);
        expect(raw<T>(a.d_context) + at, width, rows, d);
        expect(dq + from * 3 * width, 3 * width, rows, d);
        fetch(q + from * 3 * width, 3 * width, rows, d, w.q);
        turn(a.rotary, w.q, from, rows, d, R{1});
        fetch(raw<T>(a.context) + at, width, rows, d, w.out);
        fetch(raw<T>(a.d_context) + at, width, rows, d, w.d_out);
        w.scores.reshape(rows, n);
        w.d_scores.reshape(rows, n);
        w.dq.reshape(rows, d);
        multiply(w.q, false, w.k_turned, w.scores, rows, d);
        multiply(w.d_out, false, w.v_turned, w.d_scores, rows, d);
        for (std::int64_t i = 0; i < rows; ++i) {
            const R mean = rows_of<R>().dot(w.d_out.row(i), w.out.row(i), d);
            reals_of<R>().softmax_backward(w.scores.row(i), w.d_scores.row(i), n, static_cast<R>(a.scale),
                                           raw<R>(a.log_sum)[p.head * tokens + p.begin + from + i], mean, query_dropout(a, p, from + i));
        }
        if (from + rows == n)
            for (const int part : {1, 2}) expect(dq + part * width, 3 * width, n, d);
        multiply(w.scores, true, w.d_out, w.dv, n, rows, further);
        multiply(w.d_scores, true, w.q, w.dk, n, rows, further);
        multiply(w.d_scores, false, w.k, w.dq, rows, n);
        turn(a.rotary, w.dq, from, rows, d, R{-1});
        put(w.dq, rows, d, dq + from * 3 * width, 3 * width);
    }
    turn(a.rotary, w.dk, 0, n, d, R{-1});
    put(w.dk, n, d, dq + width, 3 * width);
    put(w.dv, n, d, dq + 2 * width, 3 * width);
}

template <class Args>
void check(const Args& a, Dtype wide) {
    RF_REQUIRE(a.qkv.shape.rank == 4 && a.qkv.shape[1] == 3, "qkv must be [T, 3, h, D]");
    const std::int64_t t = a.qkv.shape[0], h = a.qkv.shape[2], d = a.qkv.shape[3];
    RF_REQUIRE((a.context.shape == Shape{t, h, d}) && (a.log_sum.shape == Shape{h, t}), "context must be [T, h, D] and log_sum [h, T]");
    RF_REQUIRE(a.cu_seqlens.shape.rank == 1 && a.cu_seqlens.shape[0] >= 1, "cu_seqlens must be [S+1]");
    RF_REQUIRE(!a.rotary || (a.rotary.shape.rank == 3 && a.rotary.shape[1] * 2 == d && a.rotary.shape[2] == 2 && a.rotary.dtype == wide),
               "rotary must be [P, D/2, 2] of the accumulator dtype");
    RF_REQUIRE(!a.dropout.active() || a.sample.shape == Shape{a.cu_seqlens.shape[0] - 1}, "dropout needs sample [S]");
}

/// body(place) for every (sequence, head); each is one thread's, so its sums have one order.
template <class Args, class Body>
void for_heads(const Args& a, const Body& body) {
    const std::int64_t heads = a.qkv.shape[2], count = (a.cu_seqlens.shape[0] - 1) * heads;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) {
        const Place place = place_of(a, i, heads);
        if (place.length > 0) body(place);
    }
}

/// FLOPs of Q Kᵀ over all sequences and heads.
template <class Args>
double score_products(const Args& a) {
    const std::int32_t* bounds = indices(a.cu_seqlens);
    double squares = 0;
    for (std::int64_t s = 0; s + 1 < a.cu_seqlens.shape[0]; ++s) squares += static_cast<double>(bounds[s + 1] - bounds[s]) * (bounds[s + 1] - bounds[s]);
    return 2 * squares * static_cast<double>(a.qkv.shape[2] * a.qkv.shape[3]);
}

/// Rows that belong to no sequence.
template <class Args>
void clear_rest(const Args& a, const Tensor& t) {
    const std::int64_t rows = t.shape[0], used = indices(a.cu_seqlens)[a.cu_seqlens.shape[0] - 1];
    if (used < rows) std::memset(t.rows(used, rows).data, 0, static_cast<std::size_t>(t.rows(used, rows).bytes()));
}

}  // namespace

void attention(Stream& stream, const Attention& a) {
    check(a, accumulator_of(a.qkv.dtype));
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::attention(stream, a);
    const OpScope scope(stream, {.name = "attention", .flops = 2 * score_products(a), .bytes = bytes_of(a.qkv, a.context)});
    clear_rest(a, a.context);
    dispatch(a.qkv.dtype, [&](auto type) {
        using T = decltype(type);
        const simd::TileTable* const tiles = std::is_same_v<T, std::uint16_t> ? simd::tiles() : nullptr;
        for_heads(a, [&](const Place& p) { tiles ? attention_in_tiles(a, p, *tiles) : forward<T>(a, p); });
    });
}

void attention_backward(Stream& stream, const AttentionBackward& a) {
    check(a, accumulator_of(a.qkv.dtype));
    RF_REQUIRE(a.d_context.shape == a.context.shape && a.d_qkv.shape == a.qkv.shape, "d_context must be [T, h, D] and d_qkv [T, 3, h, D]");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::attention_backward(stream, a);
    const OpScope scope(stream, {.name = "attention_backward", .flops = 5 * score_products(a), .bytes = bytes_of(a.qkv, a.context, a.d_context, a.d_qkv)});
    clear_rest(a, a.d_qkv);
    dispatch(a.qkv.dtype, [&](auto type) {
        using T = decltype(type);
        const simd::TileTable* const tiles = std::is_same_v<T, std::uint16_t> ? simd::tiles() : nullptr;
        for_heads(a, [&](const Place& p) { tiles ? attention_backward_in_tiles(a, p, *tiles) : backward<T>(a, p); });
    });
}

}  // namespace rf
