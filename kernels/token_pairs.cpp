#include "kernels/token_pairs.hpp"

#include "core/op_log.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/product.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace rf {

namespace {

void check_vectors(const ConstTensor& x, const ConstTensor& q, const ConstTensor& k, const ConstTensor& position, const ConstTensor& rotary, bool interleaved) {
    RF_REQUIRE(q.shape.rank == 3 && k.shape == q.shape && q.shape[2] % 2 == 0, "q and k must be [G, T, D] with an even D, not ", q.shape, " and ", k.shape);
    const std::int64_t g = q.shape[0], t = q.shape[1], d = q.shape[2];
    RF_REQUIRE((x.shape == Shape{t, g * 2 * d}) && x.dtype == q.dtype && x.dtype == k.dtype && x.dtype != Dtype::bf16, "x must be [T, G 2 D] f32 or f64, like q and k");
    RF_REQUIRE(position.shape == Shape{t} && rotary.shape.rank == 3 && rotary.shape[1] * 2 == d && rotary.shape[2] == 2 && rotary.dtype == x.dtype,
               "position must be [T] and rotary [P, ", d / 2, ", 2] of x's dtype, not ", position.shape, " and ", rotary.shape);
    RF_REQUIRE(!interleaved || g == 1, "interleaved channels hold one group, not ", g);
}

/// Channel c of q (or of k) in a row of x.
struct Channels {
    std::int64_t first, step;
    Channels(bool interleaved, bool key, std::int64_t group, std::int64_t d) : first(interleaved ? key : (2 * group + key) * d), step(interleaved ? 2 : 1) {}
    std::int64_t operator()(std::int64_t c) const { return first + c * step; }
};

/// body(R{}, g, t, which) over all tokens' vectors; which: 0 q, 1 k.
template <class Body>
void for_vectors(const ConstTensor& q, const Body& body) {
    const std::int64_t g = q.shape[0], t = q.shape[1];
    dispatch(q.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
#pragma omp parallel for schedule(static)
        for (std::int64_t i = 0; i < g * t * 2; ++i) body(R{}, i / 2 % g, i / 2 / g, i % 2 != 0);
    });
}

}  // namespace

void token_pair_vectors(Stream& stream, const TokenPairVectors& a) {
    check_vectors(a.x, a.q, a.k, a.position, a.rotary, a.interleaved);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::token_pair_vectors(stream, a);
    const OpScope scope(stream, {.name = "token_pair_vectors"});
    const std::int64_t tokens = a.q.shape[1], d = a.q.shape[2];
    for_vectors(a.q, [&](auto type, std::int64_t g, std::int64_t t, bool key) {
        using R = decltype(type);
        const Channels channel(a.interleaved, key, g, d);
        const R *x = raw<R>(a.x) + t * a.x.shape[1], scale = key ? R{1} : 1 / std::sqrt(static_cast<R>(d));
        R* y = raw<R>(key ? a.k : a.q) + (g * tokens + t) * d;
        for (std::int64_t c = 0; c < d; ++c) y[c] = x[channel(c)] * scale;
        rows_of<R>().rotate(y, raw<R>(a.rotary) + indices(a.position)[t] * d, d, R{1});
    });
}

void token_pair_vectors_backward(Stream& stream, const TokenPairVectorsBackward& a) {
    check_vectors(a.dx, a.dq, a.dk, a.position, a.rotary, a.interleaved);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::token_pair_vectors_backward(stream, a);
    const OpScope scope(stream, {.name = "token_pair_vectors_backward"});
    const std::int64_t tokens = a.dq.shape[1], d = a.dq.shape[2];
    for_vectors(a.dq, [&](auto type, std::int64_t g, std::int64_t t, bool key) {
        using R = decltype(type);
        const Channels channel(a.interleaved, key, g, d);
        const R scale = key ? R{1} : 1 / std::sqrt(static_cast<R>(d));
        thread_local std::vector<R> turned;
        const R* dy = raw<R>(key ? a.dk : a.dq) + (g * tokens + t) * d;
        turned.assign(dy, dy + d);
        rows_of<R>().rotate(turned.data(), raw<R>(a.rotary) + indices(a.position)[t] * d, d, R{-1});
        R* dx = raw<R>(a.dx) + t * a.dx.shape[1];
        for (std::int64_t c = 0; c < d; ++c) dx[channel(c)] = turned[static_cast<std::size_t>(c)] * scale;
    });
}

namespace {

void check_pairs(const TokenPairs& p) {
    RF_REQUIRE(p.q.shape.rank == 3 && p.k.shape == p.q.shape && p.q.dtype == p.k.dtype && p.q.dtype != Dtype::bf16, "q and k must be [G, T, D] f32 or f64");
    RF_REQUIRE(p.types > 0 && (p.q.shape[0] == 1 || p.q.shape[0] == p.types), p.q.shape[0], " groups for ", p.types, " types");
    RF_REQUIRE(!p.bias || ((p.bias.shape == Shape{p.q.shape[1], 2 * p.types}) && p.bias.dtype == p.q.dtype), "bias must be [T, 2 L] of q's dtype");
    RF_REQUIRE(p.cu_seqlens.shape.rank == 1 && p.cu_seqlens.shape[0] >= 1, "cu_seqlens must be [S+1]");
    const std::int64_t s = p.cu_seqlens.shape[0] - 1;
    RF_REQUIRE((p.visible.shape == Shape{s, 2}), "visible must be [S, 2], not ", p.visible.shape);
    RF_REQUIRE(p.cells ? p.cells.shape.rank == 2 && p.cells.shape[1] == 3 && p.cell_begin.shape == Shape{s + 1} : !p.cell_begin,
               "cells must be [Q, 3] with their cell_begin [S+1], or both absent");
    RF_REQUIRE(p.longest <= 4096, "a sequence of ", p.longest, " tokens; the number of a cell is exact to 4096");
}
void check_stats(const TokenPairs& p, const ConstTensor& stats) {
    check_pairs(p);
    const std::int64_t s = p.cu_seqlens.shape[0] - 1;
    RF_REQUIRE((stats.shape == Shape{4, p.types, s}) && stats.dtype == p.q.dtype, "stats must be [4, L, S] of q's dtype");
}

struct RightCell {
    std::int32_t type, start, end;
};

/// Scores of one sequence and group, and what its loops need; one a thread.
template <class R>
struct Sequence {
    const TokenPairs& p;
    std::int64_t number = 0, begin = 0, n = 0, group = 0;
    std::int64_t first = 0, end = 0;   ///< visible tokens
    std::vector<R> products;           ///< [n, n] q_i · k_j
    std::vector<R> row, end_bias, ones;

    explicit Sequence(const TokenPairs& pairs) : p(pairs) {}
    const R* q() const { return raw<R>(p.q) + (group * p.q.shape[1] + begin) * p.q.shape[2]; }
    const R* k() const { return raw<R>(p.k) + (group * p.q.shape[1] + begin) * p.q.shape[2]; }
    /// Types of this group: [from, to).
    std::int64_t types_from() const { return p.q.shape[0] == 1 ? 0 : group; }
    std::int64_t types_to() const { return p.q.shape[0] == 1 ? p.types : group + 1; }

    /// False for an empty sequence.
    bool open(std::int64_t s, std::int64_t g) {
        number = s, group = g;
        begin = indices(p.cu_seqlens)[s], n = indices(p.cu_seqlens)[s + 1] - begin;
        if (n == 0) return false;
        first = std::clamp<std::int64_t>(indices(p.visible)[2 * s], 0, n), end = std::clamp<std::int64_t>(indices(p.visible)[2 * s + 1], first, n);
        const std::int64_t d = p.q.shape[2];
        products.resize(static_cast<std::size_t>(n * n));
        row.resize(static_cast<std::size_t>(n));
        end_bias.assign(static_cast<std::size_t>(n), 0);
        ones.assign(static_cast<std::size_t>(n), 1);
        product(Product<R, R>{q(), d, false, k(), d, true, products.data(), n, n, n, d, false});
        return true;
    }
    bool is_visible(std::int64_t token) const { return (token == 0 && p.first_is_visible) || (token >= first && token < end); }
    R bias(std::int64_t token, std::int64_t column) const { return p.bias ? raw<R>(p.bias)[(begin + token) * 2 * p.types + column] / 2 : R{0}; }

    /// body(i, first column, scores from it on, count) for every row of a type with a visible start. Columns left out hold -inf.
    template <class Body>
    void rows(std::int64_t type, const Body& body) {
        if (p.bias)
            for (std::int64_t j = 0; j < n; ++j) end_bias[static_cast<std::size_t>(j)] = bias(j, 2 * type);
        for (std::int64_t i = 0; i < n; ++i) {
            if (!is_visible(i)) continue;
            const std::int64_t least = p.first_is_visible ? 0 : first, from = type < p.ordered ? std::max(i, least) : least;
            const std::int64_t to = std::max<std::int64_t>(end, p.first_is_visible ? 1 : 0);
            const R start = bias(i, 2 * type + 1);
            for (std::int64_t j = from; j < to; ++j) row[static_cast<std::size_t>(j)] = products[static_cast<std::size_t>(i * n + j)] + (start + end_bias[static_cast<std::size_t>(j)]);
            for (std::int64_t j = std::max<std::int64_t>(from, 1); j < std::min(first, to); ++j) row[static_cast<std::size_t>(j)] = -std::numeric_limits<R>::infinity();
            if (from < to) body(i, from, row.data() + from, to - from);
        }
    }
    /// Right cells of a type, by rising start.
    std::pair<const RightCell*, const RightCell*> cells(std::int64_t type) const {
        if (!p.cells) return {};
        const auto* all = static_cast<const RightCell*>(p.cells.data);
        const RightCell *from = all + indices(p.cell_begin)[number], *to = all + indices(p.cell_begin)[number + 1];
        const auto below = [](const RightCell& cell, std::int64_t t) { return cell.type < t; };
        return {std::lower_bound(from, to, type, below), std::lower_bound(from, to, type + 1, below)};
    }
    /// The right cell of a softmax.
    RightCell answer(std::int64_t type) const {
        const auto [from, to] = cells(type);
        return from == to ? RightCell{0, 0, 0} : *from;
    }
};

/// Sum of exponentials against their largest.
template <class R>
struct ExpSum {
    R largest = -std::numeric_limits<R>::infinity(), sum = 0;
    void add(R other_largest, R other_sum) {
        if (other_largest > largest) {
            sum = sum * std::exp(largest - other_largest) + other_sum;
            largest = other_largest;
        } else {
            sum += other_sum * std::exp(other_largest - largest);
        }
    }
    R log() const { return largest + std::log(sum); }
    R log_with_one() const {
        const R top = std::max(largest, R{0});
        return top + std::log(std::exp(-top) + (sum > 0 ? sum * std::exp(largest - top) : R{0}));
    }
};

template <class R>
void softmax_stats_of(Sequence<R>& s, std::int64_t type, R (&stats)[4]) {
    ExpSum<R> all;
    R best = -1, right = -std::numeric_limits<R>::infinity();
    const RightCell answer = s.answer(type);
    s.rows(type, [&](std::int64_t i, std::int64_t from, const R* row, std::int64_t count) {
        R top = 0;
        const std::int64_t at = reals_of<R>().largest(row, count, &top);
        if (top > all.largest) best = static_cast<R>(i * s.n + from + at);
        all.add(top, reals_of<R>().exp_sum(row, count, top));
        if (i == answer.start && answer.end >= from && answer.end < from + count) right = row[answer.end - from];
    });
    stats[0] = all.log(), stats[1] = right, stats[2] = all.largest, stats[3] = best;
}

template <class R>
void multilabel_stats_of(Sequence<R>& s, std::int64_t type, R (&stats)[4]) {
    ExpSum<R> wrong, right;
    auto [cell, end] = s.cells(type);
    s.rows(type, [&](std::int64_t i, std::int64_t from, R* row, std::int64_t count) {
        while (cell != end && cell->start < i) ++cell;
        for (; cell != end && cell->start == i; ++cell) {
            if (cell->end < from || cell->end >= from + count) continue;
            R& score = row[cell->end - from];
            right.add(-score, 1);
            score = -std::numeric_limits<R>::infinity();
        }
        R top = 0;
        reals_of<R>().largest(row, count, &top);
        if (top > -std::numeric_limits<R>::infinity()) wrong.add(top, reals_of<R>().exp_sum(row, count, top));
    });
    stats[0] = wrong.log_with_one(), stats[1] = right.log_with_one(), stats[2] = wrong.largest, stats[3] = right.largest;
}

/// body(Sequence<R>&) for every sequence that is not empty and every group; each is one thread's, so its sums have one order.
template <class Body>
void for_sequences(const TokenPairs& p, const Body& body) {
    const std::int64_t groups = p.q.shape[0], count = (p.cu_seqlens.shape[0] - 1) * groups;
    dispatch(p.q.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
#pragma omp parallel
        {
            Sequence<R> sequence(p);
#pragma omp for schedule(dynamic)
            for (std::int64_t i = 0; i < count; ++i)
                if (sequence.open(i / groups, i % groups)) body(sequence);
        }
    });
}

/// sums from stats, sequence by sequence.
template <class R>
void add_sums(const TokenPairLoss& a, const R* stats) {
    const TokenPairs& p = a.pairs;
    const std::int64_t sequences = p.cu_seqlens.shape[0] - 1;
    Sequence<R> s(p);
    for (s.number = 0; s.number < sequences; ++s.number) {
        s.n = indices(p.cu_seqlens)[s.number + 1] - indices(p.cu_seqlens)[s.number];
        if (s.n == 0) continue;
        double loss = 0;
        bool correct = true;
        for (std::int64_t type = 0; type < p.types; ++type) {
            const auto at = [&](std::int64_t which) { return stats[(which * p.types + type) * sequences + s.number]; };
            if (p.kind == TokenPairKind::softmax) {
                const RightCell answer = s.answer(type);
                loss += static_cast<double>(at(0)) - static_cast<double>(at(1));
                correct = correct && at(3) == static_cast<R>(answer.start * s.n + answer.end);
            } else {
                loss += static_cast<double>(at(0)) + static_cast<double>(at(1));
                correct = correct && at(2) <= 0 && at(3) < 0;
            }
        }
        a.sums.as<double>()[0] += loss / static_cast<double>(p.types);
        a.sums.as<double>()[1] += correct;
    }
}

}  // namespace

void token_pair_loss(Stream& stream, const TokenPairLoss& a) {
    check_stats(a.pairs, a.stats);
    RF_REQUIRE(!a.sums || (a.sums.shape == Shape{2} && a.sums.dtype == Dtype::f64), "sums must be [2] f64");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::token_pair_loss(stream, a);
    const OpScope scope(stream, {.name = "token_pair_loss"});
    const std::int64_t sequences = a.pairs.cu_seqlens.shape[0] - 1, types = a.pairs.types;
    fill_zero(stream, a.stats);
    for_sequences(a.pairs, [&]<class R>(Sequence<R>& s) {
        for (std::int64_t type = s.types_from(); type < s.types_to(); ++type) {
            R stats[4];
            (a.pairs.kind == TokenPairKind::softmax ? softmax_stats_of<R> : multilabel_stats_of<R>)(s, type, stats);
            for (std::int64_t which = 0; which < 4; ++which) raw<R>(a.stats)[(which * types + type) * sequences + s.number] = stats[which];
        }
    });
    if (!a.sums) return;
    dispatch(a.stats.dtype, [&](auto type) {
        using R = simd::Real<decltype(type)>;
        add_sums<R>(a, raw<R>(a.stats));
    });
}

namespace {

/// The gradient of one sequence and group: d_scores of its types are summed before their products are taken.
template <class R>
void backward(const TokenPairBackward& a, Sequence<R>& s, std::vector<R>& d_scores, std::vector<R>& d_end, R factor) {
    const TokenPairs& p = a.pairs;
    const std::int64_t n = s.n, d = p.q.shape[2], sequences = p.cu_seqlens.shape[0] - 1;
    d_scores.assign(static_cast<std::size_t>(n * n), 0);
    for (std::int64_t type = s.types_from(); type < s.types_to(); ++type) {
        const auto stat = [&](std::int64_t which) { return raw<R>(a.stats)[(which * p.types + type) * sequences + s.number]; };
        const RightCell answer = p.kind == TokenPairKind::softmax ? s.answer(type) : RightCell{0, -1, -1};
        auto [cell, last] = s.cells(type);
        d_end.assign(static_cast<std::size_t>(n), 0);
        std::vector<R> kept;  // scores of a row's right cells, before the gradient takes their place
        s.rows(type, [&](std::int64_t i, std::int64_t from, R* row, std::int64_t count) {
            cell = std::find_if(cell, last, [&](const RightCell& c) { return c.start >= i; });
            kept.clear();
            if (p.kind == TokenPairKind::multilabel)
                for (auto c = cell; c != last && c->start == i; ++c) kept.push_back(c->end >= from && c->end < from + count ? row[c->end - from] : R{0});
            rows_of<R>().softmax_gradient(row, row, count, {.maximum = stat(0), .sum = 1}, i == answer.start ? answer.end - from : -1, factor);
            for (std::size_t c = 0; c < kept.size(); ++c)
                if (const std::int64_t at = cell[c].end - from; at >= 0 && at < count) row[at] = -std::exp(-kept[c] - stat(1)) * factor;
            rows_of<R>().add(row, d_scores.data() + i * n + from, count);
            if (!a.d_bias) return;
            rows_of<R>().add(row, d_end.data() + from, count);
            raw<R>(a.d_bias)[(s.begin + i) * 2 * p.types + 2 * type + 1] = rows_of<R>().dot(row, s.ones.data(), count) / 2;
        });
        if (a.d_bias)
            for (std::int64_t j = 0; j < n; ++j) raw<R>(a.d_bias)[(s.begin + j) * 2 * p.types + 2 * type] = d_end[static_cast<std::size_t>(j)] / 2;
    }
    const std::int64_t at = (s.group * p.q.shape[1] + s.begin) * d;
    product(Product<R, R>{d_scores.data(), n, false, s.k(), d, false, raw<R>(a.dq) + at, d, n, d, n, false});
    product(Product<R, R>{d_scores.data(), n, true, s.q(), d, false, raw<R>(a.dk) + at, d, n, d, n, false});
}

}  // namespace

void token_pair_backward(Stream& stream, const TokenPairBackward& a) {
    check_stats(a.pairs, a.stats);
    RF_REQUIRE(a.dq.shape == a.pairs.q.shape && a.dk.shape == a.pairs.q.shape && a.dq.dtype == a.pairs.q.dtype && a.dk.dtype == a.pairs.q.dtype,
               "dq and dk must be like q");
    RF_REQUIRE(static_cast<bool>(a.d_bias) == static_cast<bool>(a.pairs.bias) && (!a.d_bias || a.d_bias.shape == a.pairs.bias.shape), "d_bias must be like bias");
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::token_pair_backward(stream, a);
    const OpScope scope(stream, {.name = "token_pair_backward"});
    for (const Tensor& t : {a.dq, a.dk, a.d_bias})
        if (t) fill_zero(stream, t);  // rows of no sequence, and biases of rows that are not visible
    const double factor = a.factor.read() / static_cast<double>(a.pairs.types);
    for_sequences(a.pairs, [&]<class R>(Sequence<R>& s) {
        thread_local std::vector<R> d_scores, d_end;
        backward<R>(a, s, d_scores, d_end, static_cast<R>(factor));
    });
}

void token_pair_cells(Stream& stream, const TokenPairCells& a) {
    check_pairs(a.pairs);
    const std::int64_t tokens = a.pairs.q.shape[1], types = a.pairs.types;
    if (a.found)
        RF_REQUIRE(a.found.shape.rank == 2 && a.found.shape[1] == 3 && a.scores.shape == Shape{a.found.shape[0]} && a.scores.dtype == a.pairs.q.dtype &&
                       (a.begin.shape == Shape{types, tokens}),
                   "found must be [N, 3], scores [N] and begin [L, T]");
    else
        RF_REQUIRE((a.counts.shape == Shape{types, tokens}), "counts must be [L, T], not ", a.counts.shape);
    if constexpr (has_cuda)
        if (stream.device() == Device::cuda) return cuda::token_pair_cells(stream, a);
    const OpScope scope(stream, {.name = "token_pair_cells"});
    if (!a.found) fill_zero(stream, a.counts);
    for_sequences(a.pairs, [&]<class R>(Sequence<R>& s) {
        for (std::int64_t type = s.types_from(); type < s.types_to(); ++type)
            s.rows(type, [&](std::int64_t i, std::int64_t from, const R* row, std::int64_t count) {
                const std::int64_t place = type * tokens + s.begin + i;
                if (!a.found) {
                    a.counts.as<std::int32_t>()[place] = static_cast<std::int32_t>(std::count_if(row, row + count, [](R score) { return score > 0; }));
                    return;
                }
                std::int64_t to = indices(a.begin)[place];
                for (std::int64_t j = 0; j < count; ++j) {
                    if (!(row[j] > 0)) continue;
                    const std::int32_t cell[] = {static_cast<std::int32_t>(type), static_cast<std::int32_t>(i), static_cast<std::int32_t>(from + j)};
                    std::copy_n(cell, 3, a.found.as<std::int32_t>() + 3 * to);
                    raw<R>(a.scores)[to++] = row[j];
                }
            });
    });
}

}  // namespace rf
