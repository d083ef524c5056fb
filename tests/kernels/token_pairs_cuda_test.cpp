#include "kernels/token_pairs.hpp"

#include "kernels/rotary.hpp"
#include "tests/kernels/token_pairs_case.hpp"
#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

Twin list(Streams& s, Shape shape, const std::vector<double>& values) {
    return {s, shape, Dtype::i32, [&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }};
}

void check_case(const PairCase& c, std::int64_t shift = 0) {
    BOOST_TEST_CONTEXT("kind " << static_cast<int>(c.kind) << " groups " << c.groups << " D " << c.d << " longest " << c.longest() << " shift " << shift) {
        Streams s;
        const std::int64_t t = c.tokens(), sequences = c.sequences();
        const Twin x(s, {t, c.groups * 2 * c.d}, Dtype::f32, 1, shift), dx(s, {t, c.groups * 2 * c.d}, Dtype::f32, 2, shift);
        const Twin q(s, {c.groups, t, c.d}, Dtype::f32, 3, shift), k(s, {c.groups, t, c.d}, Dtype::f32, 4, shift);
        const Twin dq(s, {c.groups, t, c.d}, Dtype::f32, 5, shift), dk(s, {c.groups, t, c.d}, Dtype::f32, 6, shift);
        const Twin bias(s, {t, 2 * c.types}, Dtype::f32, 7), d_bias(s, {t, 2 * c.types}, Dtype::f32, 8);
        const Buffer angles(std::max<std::int64_t>(c.longest(), 1) * c.d * 4);
        rotary_table(angles.tensor({std::max<std::int64_t>(c.longest(), 1), c.d / 2, 2}, Dtype::f32));
        const Twin rotary(s, {std::max<std::int64_t>(c.longest(), 1), c.d / 2, 2}, Dtype::f32, [&](std::int64_t i) { return reinterpret_cast<const float*>(angles.data())[i]; });
        const Twin position = list(s, {t}, c.position()), cu = list(s, {sequences + 1}, c.cu_seqlens()), visible = list(s, {sequences, 2}, c.visible_list());
        const Twin cells = list(s, {static_cast<std::int64_t>(c.cell_list().size()) / 3, 3}, c.cell_list()), cell_begin = list(s, {sequences + 1}, c.cell_begin());
        const Twin stats(s, {4, c.types, sequences}, Dtype::f32, 9), rows(s, {4, c.types, t}, Dtype::f32, 10), sums(s, {2}, Dtype::f64, 11), counts(s, {c.types, t}, Dtype::i32, 12);
        const bool interleaved = c.groups == 1;
        const auto pairs = [&](const Stream& stream) {
            return TokenPairs{.q = q.on(stream), .k = k.on(stream), .bias = c.with_bias ? ConstTensor(bias.on(stream)) : ConstTensor(), .cu_seqlens = cu.on(stream),
                              .visible = visible.on(stream), .first_is_visible = c.first_is_visible, .types = c.types, .ordered = c.ordered, .longest = c.longest(),
                              .kind = c.kind, .cells = cells.on(stream), .cell_begin = cell_begin.on(stream)};
        };
        s.run([&](Stream& stream) {
            token_pair_vectors(stream, {.x = x.on(stream), .position = position.on(stream), .rotary = rotary.on(stream), .interleaved = interleaved, .q = q.on(stream), .k = k.on(stream)});
        });
        q.check("q");
        k.check("k");
        s.run([&](Stream& stream) {
            const TokenPairs p = pairs(stream);
            token_pair_loss(stream, {.pairs = p, .stats = stats.on(stream), .rows = rows.on(stream), .sums = sums.on(stream)});
            token_pair_backward(stream, {.pairs = p, .stats = stats.on(stream), .factor = 0.5, .dq = dq.on(stream), .dk = dk.on(stream),
                                         .d_bias = c.with_bias ? d_bias.on(stream) : Tensor()});
            token_pair_vectors_backward(stream, {.dq = dq.on(stream), .dk = dk.on(stream), .position = position.on(stream), .rotary = rotary.on(stream),
                                                 .interleaved = interleaved, .dx = dx.on(stream)});
            token_pair_cells(stream, {.pairs = p, .counts = counts.on(stream)});
        });
        stats.check("stats");
        sums.check(1e-5, "sums");
        dq.check("dq");
        dk.check("dk");
        dx.check("dx");
        if (c.with_bias) d_bias.check("d_bias");
        counts.check_equal("counts");
        std::int64_t total = 0;
        std::vector<double> begin;
        for (std::int64_t i = 0; i < c.types * t; ++i) begin.push_back(static_cast<double>(total)), total += static_cast<std::int64_t>(counts.at(i));
        const Twin places = list(s, {c.types, t}, begin), found(s, {total, 3}, Dtype::i32, [](std::int64_t) { return -7; }), scores(s, {total}, Dtype::f32, 13);
        s.run([&](Stream& stream) {
            token_pair_cells(stream, {.pairs = pairs(stream), .begin = places.on(stream), .found = found.on(stream), .scores = scores.on(stream)});
        });
        found.check_equal("found");
        scores.check("scores");
    }
}

/// One sequence of every length, all tokens visible.
PairCase lengths_case(TokenPairKind kind, std::vector<std::int64_t> lengths, std::int64_t d) {
    PairCase c{.d = d, .kind = kind, .with_bias = true, .lengths = std::move(lengths)};
    c.visible.clear(), c.cells.clear();
    for (const std::int64_t n : c.lengths) {
        c.visible.push_back({0, static_cast<std::int32_t>(n)});
        c.cells.push_back({});
        if (n > 1) c.cells.back().push_back({0, 1, static_cast<std::int32_t>(n) - 1});
    }
    return c;
}

}  // namespace

BOOST_AUTO_TEST_CASE(mixed_batches) {
    for (const TokenPairKind kind : {TokenPairKind::softmax, TokenPairKind::multilabel})
        for (const bool shared : {false, true}) check_case(mixed_case(kind, shared));
    check_case(mixed_case(TokenPairKind::multilabel, true), 1);
}

BOOST_AUTO_TEST_CASE(lengths_around_a_tile_and_head_sizes) {
    for (const TokenPairKind kind : {TokenPairKind::softmax, TokenPairKind::multilabel}) {
        check_case(lengths_case(kind, {31, 32, 33, 1, 2, 65}, 16));
        check_case(lengths_case(kind, {5, 40}, 64));
        check_case(lengths_case(kind, {9}, 18));
    }
    check_case(lengths_case(TokenPairKind::softmax, {}, 4));
}
