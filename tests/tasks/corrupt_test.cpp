/// Properties of masked_encode (roformer_v2.md 5.2).

#include "tasks/corrupt.hpp"

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <numeric>

namespace {

using namespace rf::tasks;
constexpr std::int64_t vocab_size = 12000;
constexpr std::int32_t original = 20000;  ///< no id of the vocabulary: what differs was changed

std::vector<std::int32_t> corrupted(std::int64_t n, const std::vector<Range>& pieces, std::uint64_t sample, std::uint32_t row = 0,
                                    std::uint64_t seed = 1) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n), original);
    corrupt(ids, pieces, {}, vocab_size, seed, sample, row);
    return ids;
}

}  // namespace

BOOST_AUTO_TEST_CASE(pure_function_of_seed_sample_and_row) {
    const std::vector<Range> pieces{{1, 101}};
    BOOST_TEST(corrupted(102, pieces, 5) == corrupted(102, pieces, 5));
    BOOST_TEST((corrupted(102, pieces, 5) != corrupted(102, pieces, 6)));
    BOOST_TEST((corrupted(102, pieces, 5) != corrupted(102, pieces, 5, 1)));
    BOOST_TEST((corrupted(102, pieces, 5) != corrupted(102, pieces, 5, 0, 2)));
}

BOOST_AUTO_TEST_CASE(short_pieces_and_the_outside_stay) {
    // floor(floor(0.15 * 13) / 2) = 0: nothing; of 14 tokens M = 2, one pair.
    for (std::uint64_t sample = 0; sample < 200; ++sample) {
        const std::vector<std::int32_t> ids = corrupted(40, {{1, 14}, {15, 29}}, sample);
        for (std::size_t i = 0; i < ids.size(); ++i)
            if (i < 15 || i >= 29) BOOST_REQUIRE(ids[i] == original);
        const auto changed = std::count_if(ids.begin(), ids.end(), [](std::int32_t id) { return id != original; });
        BOOST_REQUIRE((changed == 0 || changed == 2));
    }
}

BOOST_AUTO_TEST_CASE(pairs_of_neighbours_in_the_shares_of_the_recipe) {
    constexpr int samples = 20000;
    std::int64_t pairs = 0, masks = 0, random = 0, first = 0, last = 0;
    for (std::uint64_t sample = 0; sample < samples; ++sample) {
        // 15 inner tokens: M = 2, so one pair (p, p + 1), p uniform over the lesser of two distinct places.
        const std::vector<std::int32_t> ids = corrupted(17, {{1, 16}}, sample);
        std::vector<std::size_t> at;
        for (std::size_t i = 0; i < ids.size(); ++i)
            if (ids[i] != original) at.push_back(i);
        if (at.empty()) continue;
        BOOST_REQUIRE(at.size() == 2U);
        BOOST_REQUIRE(at[1] == at[0] + 1);
        ++pairs;
        BOOST_REQUIRE((ids[at[0]] == 103) == (ids[at[1]] == 103));
        if (ids[at[0]] == 103) ++masks;
        else ++random;
        for (const std::size_t i : at) BOOST_REQUIRE((ids[i] >= 1 && ids[i] < vocab_size));
        first += at[0] == 1;
        last += at[0] == 14;
    }
    // Binomial counts: within five standard deviations.
    const auto near = [](std::int64_t count, double n, double p) {
        return std::abs(static_cast<double>(count) - n * p) < 5 * std::sqrt(n * p * (1 - p));
    };
    BOOST_TEST(near(masks, samples, 0.8));
    BOOST_TEST(near(random, samples, 0.2 * 0.9));
    BOOST_TEST(near(pairs, samples, 0.98));
    // The lesser of two distinct of 15 places is the first with probability 14 / 105, the last but one with 1 / 105.
    BOOST_TEST(near(first, samples, 0.98 * 14 / 105));
    BOOST_TEST(near(last, samples, 0.98 * 1 / 105));
}

BOOST_AUTO_TEST_CASE(as_many_pairs_as_the_length_says) {
    // 100 tokens: M = 2 * floor(15 / 2) = 14, so 7 pairs, of which about 0.98 change; pairs never overlap.
    std::int64_t changed = 0;
    for (std::uint64_t sample = 0; sample < 2000; ++sample) {
        const std::vector<std::int32_t> ids = corrupted(102, {{1, 101}}, sample);
        const auto n = std::count_if(ids.begin(), ids.end(), [](std::int32_t id) { return id != original; });
        BOOST_REQUIRE(n <= 14);
        BOOST_REQUIRE(n % 2 == 0);
        changed += n;
    }
    BOOST_TEST(std::abs(static_cast<double>(changed) / 2000 - 14 * 0.98) < 5 * 2 * std::sqrt(7 * 0.98 * 0.02 / 2000));
}
