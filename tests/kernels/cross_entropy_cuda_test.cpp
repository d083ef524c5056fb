#include "kernels/cross_entropy.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::int64_t m, v;
    Dtype d_dtype;
    std::int64_t ranks = 1;
    bool in_place = false;
    double largest = 20;     ///< logits lie between -largest and largest
    bool factor_in_memory = false;
    std::int64_t shift = 0;
};

void check_case(const Case& k) {
    BOOST_TEST_CONTEXT("M " << k.m << " v " << k.v << ' ' << name_of(k.d_dtype) << " ranks " << k.ranks << " shift " << k.shift) {
        Streams s;
        std::mt19937 random(3);
        const Twin targets(s, {k.m}, Dtype::i32, [&](std::int64_t i) {
            return i % 4 == 3 ? -1.0 : static_cast<double>(random() % static_cast<std::uint64_t>(k.v * k.ranks));
        });
        const Twin parts(s, {k.ranks, 4, k.m}, Dtype::f32, 1), whole(s, {4, k.m}, Dtype::f32, 2);
        const Twin factor(s, {1}, Dtype::f32, [](std::int64_t) { return 0.125; });
        std::vector<Twin> logits;
        for (std::int64_t rank = 0; rank < k.ranks; ++rank) {
            // Few different values, so that the largest one stands in many places: the lowest id counts.
            logits.emplace_back(s, Shape{k.m, k.v}, Dtype::f32,
                                [&](std::int64_t i) { return i % k.v % 7 == 0 ? std::floor(random() % 5 / 4.0) * k.largest : (random() * 0x1p-31 - 1) * k.largest; }, k.shift);
            s.run([&](Stream& stream) {
                softmax_stats(stream, {.logits = logits.back().on(stream), .targets = targets.on(stream),
                                       .stats = parts.on(stream).rows(rank, rank + 1).reshape({4, k.m}), .first_id = rank * k.v});
            });
        }
        parts.check("stats");
        const Twin sums(s, {2}, Dtype::f64, 4);
        s.run([&](Stream& stream) {
            join_softmax_stats(stream, {.parts = parts.on(stream), .whole = whole.on(stream)});
            cross_entropy_sums(stream, {.whole_stats = whole.on(stream), .targets = targets.on(stream), .sums = sums.on(stream)});
        });
        whole.check("whole stats");
        sums.check(1e-6, "sums");
        for (std::int64_t rank = 0; rank < k.ranks; ++rank) {
            const Twin apart(s, {k.m, k.v}, k.d_dtype, 5, k.shift);
            const Twin& own = logits[static_cast<std::size_t>(rank)];
            const Twin& d = k.in_place ? own : apart;
            s.run([&](Stream& stream) {
                cross_entropy_backward(stream, {.logits = own.on(stream), .targets = targets.on(stream), .whole_stats = whole.on(stream), .d_logits = d.on(stream),
                                                .factor = k.factor_in_memory ? Scalar(factor.on(stream)) : Scalar(0.125), .first_id = rank * k.v});
            });
            d.check("d_logits");
        }
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(vocabularies_of_every_size) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t v : {1, 3, 4, 8, 20, 255, 1024, 4100, 5000}) check_case({.m = 5, .v = v, .d_dtype = dtype});
}

BOOST_AUTO_TEST_CASE(any_number_of_rows) {
    for (const std::int64_t m : {0, 1, 2, 300, 1100}) check_case({.m = m, .v = 8, .d_dtype = Dtype::bf16, .factor_in_memory = true});
}

BOOST_AUTO_TEST_CASE(a_vocabulary_over_ranks) {
    check_case({.m = 9, .v = 40, .d_dtype = Dtype::bf16, .ranks = 3});
    check_case({.m = 9, .v = 41, .d_dtype = Dtype::f32, .ranks = 2});
}

BOOST_AUTO_TEST_CASE(in_place_far_apart_and_off_the_alignment) {
    check_case({.m = 6, .v = 4104, .d_dtype = Dtype::f32, .in_place = true});
    check_case({.m = 6, .v = 4101, .d_dtype = Dtype::f32, .in_place = true});
    check_case({.m = 6, .v = 520, .d_dtype = Dtype::bf16, .largest = 1000});
    check_case({.m = 6, .v = 64, .d_dtype = Dtype::bf16, .shift = 1});
}

BOOST_AUTO_TEST_CASE(columns_that_are_excluded_have_no_probability) {
    Streams s;
    const double inf = std::numeric_limits<double>::infinity();
    // The first threads of a row see nothing but -inf.
    const Twin logits(s, {1, 2048}, Dtype::f32, [&](std::int64_t i) { return i < 1500 ? -inf : i * 1e-3; }), targets(s, {1}, Dtype::i32, [](std::int64_t) { return 1700; });
    const Twin stats(s, {4, 1}, Dtype::f32, 1), d(s, {1, 2048}, Dtype::f32, 2);
    s.run([&](Stream& stream) {
        softmax_stats(stream, {.logits = logits.on(stream), .targets = targets.on(stream), .stats = stats.on(stream)});
        cross_entropy_backward(stream, {.logits = logits.on(stream), .targets = targets.on(stream), .whole_stats = stats.on(stream), .d_logits = d.on(stream)});
    });
    stats.check("stats");
    d.check("d_logits");
    BOOST_TEST(d.at(0) == 0);
    BOOST_TEST(stats.at(3) == 2047);
}

BOOST_AUTO_TEST_CASE(rows_without_a_target_change_no_bit) {
    std::vector<std::vector<std::byte>> results;
    for (const std::int64_t padded : {1500, 1501, 4000}) {
        Streams s;
        // Row i has the same numbers whatever the count of rows.
        const Twin stats(s, {4, padded}, Dtype::f32, [&](std::int64_t i) { return 2 + std::sin(static_cast<double>(i % padded * 4 + i / padded)); });
        const Twin targets(s, {padded}, Dtype::i32, [](std::int64_t i) { return i < 1500 ? i % 3 : -1; }), sums(s, {2}, Dtype::f64, [](std::int64_t) { return 0; });
        s.run([&](Stream& stream) { cross_entropy_sums(stream, {.whole_stats = stats.on(stream), .targets = targets.on(stream), .sums = sums.on(stream)}); });
        sums.check(1e-9, "sums");
        BOOST_TEST(sums.at(0) != 0);
        results.push_back(sums.bytes());
    }
    BOOST_TEST((results[1] == results[0]));
    BOOST_TEST((results[2] == results[0]));
}
