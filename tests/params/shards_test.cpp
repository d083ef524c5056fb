#include "params/shards.hpp"

#include "core/check.hpp"

#include <boost/test/unit_test.hpp>

#include <vector>

using namespace rf;

BOOST_AUTO_TEST_CASE(every_element_has_one_owner_and_ranks_own_the_same_of_every_bucket) {
    for (const int ranks : {1, 2, 3, 4, 100}) {
        for (const std::int64_t bucket : {0, 1, 30000}) {
            const Shards shards(1000001, ranks, bucket);
            BOOST_TEST(shards.padded_size() >= 1000001);
            BOOST_TEST(shards.padded_size() - 4096 * ranks < 1000001);
            BOOST_TEST(shards.shard_size() * ranks == shards.padded_size());
            std::int64_t at = 0, in_shard = 0;  // pieces are laid out without gaps, in the flat array and in the shard
            for (int b = 0; b < shards.buckets(); ++b) {
                BOOST_TEST(shards.bucket(b).begin == at);
                BOOST_TEST(shards.in_shard(b).begin == in_shard);
                if (b + 1 < shards.buckets()) BOOST_TEST(shards.bucket(b).size() >= bucket);
                for (int r = 0; r < ranks; ++r) {
                    const Range piece = shards.piece(b, r);
                    BOOST_TEST(piece.begin == at);
                    BOOST_TEST(piece.begin % 4096 == 0);
                    BOOST_TEST(piece.size() > 0);
                    BOOST_TEST(piece.size() == shards.in_shard(b).size());
                    at = piece.end;
                }
                BOOST_TEST(shards.bucket(b).end == at);
                in_shard = shards.in_shard(b).end;
            }
            BOOST_TEST(at == shards.padded_size());
            BOOST_TEST(in_shard == shards.shard_size());
        }
    }
}

BOOST_AUTO_TEST_CASE(buckets_are_as_long_as_asked_for) {
    BOOST_TEST(Shards(1000000, 2, 1).buckets() == 1000000 / 8192 + 1);
    BOOST_TEST(Shards(1000000, 2, 20000).bucket(0).size() == 3 * 8192);
    BOOST_TEST(Shards(100 << 20, 1).buckets() == 1);                         // one rank talks to nobody
    BOOST_TEST(Shards(100 << 20, 8).bucket(0).size() == 4 << 20);            // 16 MiB of f32
    BOOST_TEST(Shards(100 << 20, 64).bucket(0).size() == (1 << 18) * 64);    // 1 MiB a rank
    BOOST_CHECK_THROW(Shards(0, 2), Error);
}

BOOST_AUTO_TEST_CASE(a_bucket_is_complete_when_all_of_it_is) {
    const Shards shards(30000, 2, 8192);  // buckets begin at 0, 8192, 16384, 24576
    BOOST_TEST(shards.buckets() == 4);
    const std::vector<std::pair<std::int64_t, int>> expected{{0, 0}, {1, 1}, {8191, 1}, {8192, 1}, {8193, 2}, {24576, 3}, {24577, 4}, {30000, 4}};
    for (const auto& [element, first] : expected) BOOST_TEST(shards.first_behind(element) == first, "from element " << element);
}

BOOST_AUTO_TEST_CASE(owned_elements_are_counted_by_walking_along_them) {
    for (const int ranks : {1, 2, 3}) {
        const Shards shards(60000, ranks, 10000);
        for (int r = 0; r < ranks; ++r) {
            std::int64_t count = 0, wrong = 0;
            int b = 0;
            for (std::int64_t i = 0; i < shards.padded_size(); ++i) {
                wrong += shards.owned_before(i, r) != count;
                if (i == shards.bucket(b).end) ++b;
                count += i >= shards.piece(b, r).begin && i < shards.piece(b, r).end;
            }
            BOOST_TEST(wrong == 0);
            BOOST_TEST(shards.owned_before(shards.padded_size(), r) == shards.shard_size());
        }
    }
}
