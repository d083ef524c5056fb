#include "data/batch.hpp"

#include "data/corpus_build.hpp"
#include "tests/scratch.hpp"
#include "text/unicode.hpp"

#include <boost/test/unit_test.hpp>

#include <numeric>
#include <random>
#include <set>

using namespace rf;

namespace {

/// A corpus of 50 documents of 2 to 51 characters, built once.
const Corpus& corpus() {
    static const test::Scratch scratch;
    static const Corpus made = [] {
        std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", text;
        for (char32_t c = 0; c < 100; ++c) vocab += encode_utf8(std::u32string(1, 0x4E00 + c)) + "\n";
        for (char32_t d = 0; d < 50; ++d) {
            for (char32_t i = 0; i < d + 2; ++i) text += encode_utf8(std::u32string(1, 0x4E00 + (d * 7 + i * i) % 100));
            text += '\n';
        }
        test::write(scratch / "vocab.txt", vocab);
        test::write(scratch / "text.txt", text);
        BuildCorpusInput in;
        in.text = boost::json::string(scratch("text.txt"));
        in.vocab = scratch("vocab.txt");
        in.output = scratch("corpus");
        in.segmenter.name = "none";
        const auto self = make_self_communicator();
        build_corpus(in, {"test", ""}, *self, false);
        return Corpus(boost::json::string(in.output), {"test", "corpus"});
    }();
    return made;
}

SampleStream stream(std::uint64_t seed = 1, int lanes = 4) {
    return {.corpus = corpus(), .seed = seed, .sequences = 8, .max_length = 32, .lanes = lanes, .special = {2, 3, 4}, .vocab_size = 105, .held_out = 10};
}

bool same(const PackedBatch& a, const PackedBatch& b) {
    return a.ids == b.ids && a.position == b.position && a.token_sample == b.token_sample && a.sample == b.sample && a.cu_seqlens == b.cu_seqlens &&
           a.rows == b.rows && a.targets == b.targets;
}

std::set<std::int64_t> held_out(const SampleStream& s) {
    std::set<std::int64_t> out;
    for (std::int64_t i = 0; i < s.held_out; ++i) {
        const PackedBatch batch = s.held_out_batch(i, i + 1);
        out.insert(batch.sample[0]);  // a held-out sequence is numbered by its document
    }
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(lanes_are_filled_longest_first) {
    BOOST_TEST((deal_to_lanes({5, 9, 7, 3}, 2) == std::vector<int>{1, 0, 1, 0}));  // 9 | 7, 9 | 7 5, 9 3 | 7 5
    BOOST_TEST((deal_to_lanes({4, 4, 4}, 3) == std::vector<int>{0, 1, 2}));        // ties: the lowest lane
    BOOST_TEST((deal_to_lanes({4}, 3) == std::vector<int>{0}));
    BOOST_TEST(deal_to_lanes({}, 3).empty());
}

BOOST_AUTO_TEST_CASE(lanes_differ_by_one_sequence_at_most) {
    std::mt19937 draw(3);
    for (int trial = 0; trial < 50; ++trial) {
        std::vector<std::int64_t> lengths(64), load(8, 0);
        for (auto& n : lengths) n = 3 + draw() % 510;
        const auto lanes = deal_to_lanes(lengths, 8);
        for (std::size_t i = 0; i < lengths.size(); ++i) load[static_cast<std::size_t>(lanes[i])] += lengths[i];
        const auto [least, most] = std::minmax_element(load.begin(), load.end());
        BOOST_TEST(*most - *least <= *std::max_element(lengths.begin(), lengths.end()));
        BOOST_TEST((deal_to_lanes(lengths, 8) == lanes));
    }
}

BOOST_AUTO_TEST_CASE(permutations_are_bijections_that_depend_on_seed_and_round) {
    for (const std::int64_t n : {1, 2, 3, 5, 16, 17, 1000, 4097}) {
        std::set<std::int64_t> seen;
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t to = permute(i, n, 1, 0);
            BOOST_REQUIRE((to >= 0 && to < n));
            seen.insert(to);
        }
        BOOST_TEST(static_cast<std::int64_t>(seen.size()) == n);
    }
    const auto order = [](std::uint64_t seed, std::uint32_t round) {
        std::vector<std::int64_t> out;
        for (std::int64_t i = 0; i < 1000; ++i) out.push_back(permute(i, 1000, seed, round));
        return out;
    };
    BOOST_TEST((order(1, 0) == order(1, 0)));
    BOOST_TEST((order(1, 0) != order(2, 0)));
    BOOST_TEST((order(1, 0) != order(1, 1)));
}

BOOST_AUTO_TEST_CASE(every_epoch_reads_every_training_document_once_in_a_new_order) {
    const SampleStream s = stream();
    std::set<std::vector<std::int64_t>> orders;
    for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
        std::vector<std::int64_t> order;
        for (std::int64_t i = 0; i < 40; ++i) order.push_back(s.document_of(epoch * 40 + i));
        orders.insert(order);
        BOOST_TEST((std::set<std::int64_t>(order.begin(), order.end()).size() == 40U));
    }
    BOOST_TEST(orders.size() == 5U);
}

BOOST_AUTO_TEST_CASE(held_out_documents_are_never_trained_on_whatever_the_seed) {
    const std::set<std::int64_t> kept = held_out(stream(1));
    BOOST_TEST(kept.size() == 10U);
    for (const std::uint64_t seed : {1, 2, 99}) {
        const SampleStream s = stream(seed);
        BOOST_TEST((held_out(s) == kept));
        for (std::int64_t i = 0; i < 400; ++i) BOOST_TEST(kept.count(s.document_of(i)) == 0U);
    }
}

BOOST_AUTO_TEST_CASE(held_out_masks_never_change) {
    BOOST_TEST(same(stream(1).held_out_batch(0, 10), stream(2, 1).held_out_batch(0, 10)));
    PackedBatch joined = stream(1).held_out_batch(0, 10), first = stream(1).held_out_batch(0, 5);
    BOOST_TEST((std::vector<std::int32_t>(joined.ids.begin(), joined.ids.begin() + first.tokens()) == first.ids));  // nor with the size of a batch
}

BOOST_AUTO_TEST_CASE(a_rank_makes_the_lanes_that_all_would_make) {
    const SampleStream s = stream();
    for (std::int64_t update = 0; update < 12; ++update) {
        const auto all = s.lanes_of(update, 0, 4);
        std::int64_t sequences = 0;
        for (int lane = 0; lane < 4; ++lane) {
            BOOST_TEST(same(s.lanes_of(update, lane, 1)[0], all[static_cast<std::size_t>(lane)]));
            sequences += all[static_cast<std::size_t>(lane)].sequences();
        }
        BOOST_TEST(sequences == 8);
    }
}

BOOST_AUTO_TEST_CASE(packed_batches_join_sequences_without_padding) {
    for (const PackedBatch& b : stream().lanes_of(3, 0, 4)) {
        BOOST_TEST(b.cu_seqlens.front() == 0);
        BOOST_TEST(b.cu_seqlens.back() == b.tokens());
        double squares = 0;
        for (std::size_t q = 0; q < b.sample.size(); ++q) {
            const auto begin = static_cast<std::size_t>(b.cu_seqlens[q]), end = static_cast<std::size_t>(b.cu_seqlens[q + 1]);
            BOOST_TEST(b.ids[begin] == 2);
            BOOST_TEST(b.ids[end - 1] == 3);
            for (std::size_t t = begin; t < end; ++t) {
                BOOST_TEST(b.position[t] == static_cast<std::int32_t>(t - begin));
                BOOST_TEST(b.token_sample[t] == b.sample[q]);
            }
            squares += static_cast<double>((end - begin) * (end - begin));
        }
        BOOST_TEST(b.squared_lengths() == squares);
        BOOST_TEST(b.rows.size() == b.targets.size());
        BOOST_TEST(std::is_sorted(b.rows.begin(), b.rows.end()));
    }
}

BOOST_AUTO_TEST_CASE(the_prefetcher_hands_out_the_same_batches_from_any_update) {
    const SampleStream s = stream();
    Prefetcher<std::vector<PackedBatch>> ahead([&](std::int64_t update) { return s.lanes_of(update, 1, 2); }, 5);
    for (std::int64_t update = 5; update < 15; ++update) {
        const auto expected = s.lanes_of(update, 1, 2), got = ahead.next();
        BOOST_REQUIRE(got.size() == 2U);
        BOOST_TEST((same(got[0], expected[0]) && same(got[1], expected[1])));
    }
}
