#pragma once
/// Packed sequences with their right cells, and the scores of their pairs by the formula, for tests of kernels/token_pairs.hpp.

#include "kernels/token_pairs.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace rf::test {

struct PairCase {
    std::int64_t types = 1, ordered = 1, groups = 1, d = 4;
    TokenPairKind kind = TokenPairKind::softmax;
    bool first_is_visible = false, with_bias = false;
    std::vector<std::int64_t> lengths{5};
    std::vector<std::array<std::int32_t, 2>> visible{{0, 5}};      ///< of each sequence
    std::vector<std::vector<std::array<std::int32_t, 3>>> cells{{}};
    std::int64_t padding = 0;  ///< tokens after the last sequence

    std::int64_t sequences() const { return static_cast<std::int64_t>(lengths.size()); }
    std::int64_t tokens() const {
        std::int64_t n = padding;
        for (const std::int64_t length : lengths) n += length;
        return n;
    }
    std::int64_t longest() const { return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end()); }
    std::vector<double> cu_seqlens() const {
        std::vector<double> cu{0};
        for (const std::int64_t length : lengths) cu.push_back(cu.back() + static_cast<double>(length));
        return cu;
    }
    std::vector<double> position() const {
        std::vector<double> p;
        for (const std::int64_t length : lengths)
            for (std::int64_t t = 0; t < length; ++t) p.push_back(static_cast<double>(t));
        p.resize(static_cast<std::size_t>(tokens()), 0);
        return p;
    }
    std::vector<double> visible_list() const {
        std::vector<double> v;
        for (const auto& range : visible) v.push_back(range[0]), v.push_back(range[1]);
        return v;
    }
    std::vector<double> cell_list() const {
        std::vector<double> c;
        for (const auto& own : cells)
            for (const auto& cell : own) c.insert(c.end(), cell.begin(), cell.end());
        return c;
    }
    std::vector<double> cell_begin() const {
        std::vector<double> begin{0};
        for (const auto& own : cells) begin.push_back(begin.back() + static_cast<double>(own.size()));
        return begin;
    }
    bool counts(std::int64_t s, std::int64_t type, std::int64_t i, std::int64_t j) const {
        const auto& v = visible[static_cast<std::size_t>(s)];
        const auto seen = [&](std::int64_t t) { return (t == 0 && first_is_visible) || (t >= v[0] && t < v[1]); };
        return seen(i) && seen(j) && (type >= ordered || i <= j);
    }
    bool is_right(std::int64_t s, std::int64_t type, std::int64_t i, std::int64_t j) const {
        bool any = false;
        for (const auto& cell : cells[static_cast<std::size_t>(s)]) {
            if (cell[0] != type) continue;
            any = true;
            if (cell[1] == i && cell[2] == j) return true;
        }
        return kind == TokenPairKind::softmax && !any && i == 0 && j == 0;
    }

    /// Score of a cell from q, k [G, T, D] and bias [T, 2 L], by the formula.
    double score(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& bias, std::int64_t begin, std::int64_t type, std::int64_t i, std::int64_t j) const {
        const std::int64_t g = groups == 1 ? 0 : type;
        double sum = 0;
        for (std::int64_t c = 0; c < d; ++c)
            sum += q[static_cast<std::size_t>((g * tokens() + begin + i) * d + c)] * k[static_cast<std::size_t>((g * tokens() + begin + j) * d + c)];
        if (with_bias) sum += (bias[static_cast<std::size_t>((begin + i) * 2 * types + 2 * type + 1)] + bias[static_cast<std::size_t>((begin + j) * 2 * types + 2 * type)]) / 2;
        return sum;
    }
    /// Loss as token_pairs.hpp has it, sequence by sequence, from plain sums.
    double loss(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& bias) const {
        double total = 0;
        std::int64_t begin = 0;
        for (std::int64_t s = 0; s < sequences(); begin += lengths[static_cast<std::size_t>(s++)]) {
            const std::int64_t n = lengths[static_cast<std::size_t>(s)];
            for (std::int64_t type = 0; n > 0 && type < types; ++type) {
                double wrong = 0, right = 0, answer = 0;
                for (std::int64_t i = 0; i < n; ++i)
                    for (std::int64_t j = 0; j < n; ++j) {
                        if (!counts(s, type, i, j)) continue;
                        const double x = score(q, k, bias, begin, type, i, j);
                        if (kind == TokenPairKind::softmax || !is_right(s, type, i, j)) wrong += std::exp(x);
                        if (is_right(s, type, i, j)) right += std::exp(-x), answer = x;
                    }
                total += (kind == TokenPairKind::softmax ? std::log(wrong) - answer : std::log1p(wrong) + std::log1p(right)) / static_cast<double>(types);
            }
        }
        return total;
    }
};

/// Lengths around a tile, an empty sequence, one that lets nothing be seen but its first token; right cells of all sorts.
inline PairCase mixed_case(TokenPairKind kind, bool shared) {
    PairCase c{.types = kind == TokenPairKind::softmax ? 1 : 4, .ordered = kind == TokenPairKind::softmax ? 1 : 2, .d = 4, .kind = kind,
               .first_is_visible = kind == TokenPairKind::softmax, .with_bias = shared, .lengths = {7, 1, 0, 34, 3}, .visible = {{2, 6}, {0, 1}, {0, 0}, {1, 33}, {1, 1}},
               .cells = {{{0, 2, 4}}, {}, {}, {{0, 5, 31}}, {}}, .padding = 3};
    c.groups = shared ? 1 : c.types;
    // Two cells of one start, a pair that runs backwards where it may, a type without any.
    if (kind == TokenPairKind::multilabel)
        c.cells = {{{0, 2, 2}, {0, 2, 5}, {1, 3, 4}, {2, 5, 2}}, {{3, 0, 0}}, {}, {{0, 1, 32}, {0, 3, 9}, {1, 31, 31}, {2, 32, 1}, {2, 32, 5}}, {}};
    return c;
}

}  // namespace rf::test
