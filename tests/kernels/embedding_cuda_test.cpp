#include "kernels/embedding.hpp"

#include "tests/kernels/twin.hpp"

using namespace rf;
using namespace rf::test;

namespace {

struct Case {
    std::int64_t tokens, c, vocabulary;
    Dtype dtype;
    std::int64_t first_id = 0, v = 0;  ///< this rank's part; v 0: all
    bool segments = true;
    double share = 0.2;                ///< of all tokens that have id 5
    std::int64_t empty_groups = 0;     ///< behind the others
};

void check_case(const Case& k) {
    BOOST_TEST_CONTEXT("T " << k.tokens << " C " << k.c << " V " << k.vocabulary << ' ' << name_of(k.dtype) << " share " << k.share) {
        Streams s;
        const std::int64_t v = k.v ? k.v : k.vocabulary;
        std::mt19937 random(7);
        std::vector<std::int32_t> ids(static_cast<std::size_t>(k.tokens));
        for (auto& id : ids) id = random() * 0x1p-32 < k.share ? 5 : static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(k.vocabulary));
        IdGroups groups = group_by_id(ids);
        groups.begin.resize(groups.begin.size() + static_cast<std::size_t>(k.empty_groups), groups.begin.back());
        const auto numbers = [&](const std::vector<std::int32_t>& n) {
            return Twin(s, {static_cast<std::int64_t>(n.size())}, Dtype::i32, [&](std::int64_t i) { return n[static_cast<std::size_t>(i)]; });
        };
        const Twin id = numbers(ids), tokens = numbers(groups.tokens), begin = numbers(groups.begin);
        const Twin segment(s, {k.tokens}, Dtype::i32, [](std::int64_t t) { return t % 5 == 0; });
        const Twin word(s, {v, k.c}, k.dtype, 1), types(s, {2, k.c}, k.dtype, 2), y(s, {k.tokens, k.c}, k.dtype, 3);
        const auto segments_on = [&](const Stream& stream) { return k.segments ? ConstTensor(segment.on(stream)) : ConstTensor{}; };
        s.run([&](Stream& stream) {
            embedding(stream, {.ids = id.on(stream), .segments = segments_on(stream), .word = word.on(stream),
                               .segment = k.first_id == 0 ? ConstTensor(types.on(stream)) : ConstTensor{}, .y = y.on(stream), .first_id = k.first_id});
        });
        y.check("y");

        const Twin dy(s, {k.tokens, k.c}, k.dtype, 4), d_word(s, {v, k.c}, Dtype::f32, 5), d_types(s, {2, k.c}, Dtype::f32, 6);
        const Twin scratch(s, {embedding_scratch_rows(k.tokens, 2), k.c}, Dtype::f32, [](std::int64_t) { return std::nan(""); });
        s.run([&](Stream& stream) {
            embedding_backward(stream, {.ids = id.on(stream), .segments = segments_on(stream), .tokens = tokens.on(stream), .begin = begin.on(stream),
                                        .dy = dy.on(stream), .d_word = d_word.on(stream), .d_segment = d_types.on(stream), .first_id = k.first_id,
                                        .scratch = scratch.on(stream)});
        });
        d_word.check(tolerance(Dtype::f32, k.tokens), "d_word");
        d_types.check(tolerance(Dtype::f32, k.tokens), "d_segment");
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(any_number_of_tokens) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t tokens : {0, 1, 2, 31, 33, 65, 200}) check_case({.tokens = tokens, .c = 24, .vocabulary = 13, .dtype = dtype});
}

BOOST_AUTO_TEST_CASE(groups_of_every_length) {
    // All of one id; long groups that end anywhere in a window; singles only.
    for (const double share : {1.0, 0.6, 0.0})
        for (const std::int64_t vocabulary : {6, 9, 700}) check_case({.tokens = 330, .c = 8, .vocabulary = vocabulary, .dtype = Dtype::bf16, .share = share});
    check_case({.tokens = 2100, .c = 16, .vocabulary = 40, .dtype = Dtype::f32, .share = 0.5});
}

BOOST_AUTO_TEST_CASE(rows_of_every_width) {
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
        for (const std::int64_t c : {3, 264, 768, 1048}) check_case({.tokens = 70, .c = c, .vocabulary = 13, .dtype = dtype});
}

BOOST_AUTO_TEST_CASE(part_of_a_table_no_segments_and_empty_groups) {
    check_case({.tokens = 150, .c = 40, .vocabulary = 30, .dtype = Dtype::bf16, .first_id = 4, .v = 11, .share = 0.4});
    check_case({.tokens = 150, .c = 40, .vocabulary = 30, .dtype = Dtype::f32, .first_id = 20, .v = 10});
    check_case({.tokens = 150, .c = 40, .vocabulary = 30, .dtype = Dtype::f32, .segments = false});
    check_case({.tokens = 150, .c = 40, .vocabulary = 30, .dtype = Dtype::f32, .empty_groups = 77});
}

BOOST_AUTO_TEST_CASE(tokens_without_a_gradient_change_no_bit) {
    std::vector<std::vector<std::byte>> words, types;
    for (const std::int64_t padded : {333, 334, 1024}) {
        Streams s;
        std::vector<std::int32_t> ids(static_cast<std::size_t>(padded), 0);
        for (std::int32_t t = 0; t < 333; ++t) ids[static_cast<std::size_t>(t)] = t % 3 == 0 ? 0 : t % 7;
        const IdGroups groups = group_by_id(ids);
        const auto numbers = [&](const std::vector<std::int32_t>& n) {
            return Twin(s, {static_cast<std::int64_t>(n.size())}, Dtype::i32, [&](std::int64_t i) { return n[static_cast<std::size_t>(i)]; });
        };
        const Twin id = numbers(ids), tokens = numbers(groups.tokens), begin = numbers(groups.begin);
        const Twin dy(s, {padded, 16}, Dtype::bf16, [](std::int64_t i) { return i < 333 * 16 ? std::sin(static_cast<double>(i)) : 0; });
        const Twin d_word(s, {7, 16}, Dtype::f32, 1), d_types(s, {2, 16}, Dtype::f32, 2), scratch(s, {embedding_scratch_rows(padded, 2), 16}, Dtype::f32, 3);
        s.run([&](Stream& stream) {
            embedding_backward(stream, {.ids = id.on(stream), .tokens = tokens.on(stream), .begin = begin.on(stream), .dy = dy.on(stream),
                                        .d_word = d_word.on(stream), .d_segment = d_types.on(stream), .scratch = scratch.on(stream)});
        });
        d_word.check("d_word");
        d_types.check("d_segment");
        words.push_back(d_word.bytes());
        types.push_back(d_types.bytes());
    }
    for (std::size_t i = 1; i < words.size(); ++i) {
        BOOST_TEST((words[i] == words[0]));
        BOOST_TEST((types[i] == types[0]));
    }
}
