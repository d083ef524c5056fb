#include "data/seen_set.hpp"

#include <boost/test/unit_test.hpp>

#include <random>
#include <set>

using namespace rf;

BOOST_AUTO_TEST_CASE(agrees_with_a_set_of_the_library_when_full) {
    std::mt19937_64 draw(1);
    SeenSet<Hash128> seen(20000);
    std::set<Hash128> truth;
    std::vector<Hash128> keys;
    for (int i = 0; i < 20000; ++i) keys.push_back({draw(), draw()});
    for (int i = 0; i < 40000; ++i) {
        const Hash128 key = keys[draw() % keys.size()];
        BOOST_REQUIRE(seen.contains(key) == (truth.count(key) > 0));
        BOOST_REQUIRE(seen.insert(key) == truth.insert(key).second);
    }
    for (const Hash128& key : keys) BOOST_REQUIRE(seen.insert(key) == truth.insert(key).second);
    BOOST_TEST(truth.size() == 20000U);
}

BOOST_AUTO_TEST_CASE(keys_without_any_spread_are_found_too) {
    for (const std::uint64_t high : {std::uint64_t{0}, ~std::uint64_t{0}}) {
        SeenSet<Hash128> seen(3000);
        for (std::uint64_t low = 3000; low-- > 0;) BOOST_REQUIRE(seen.insert({high, low * 3 + 2}));
        for (std::uint64_t low = 0; low < 3000; ++low) {
            BOOST_REQUIRE(!seen.insert({high, low * 3 + 2}));
            BOOST_REQUIRE(!seen.contains({high, low * 3 + 3}));
        }
    }
}

BOOST_AUTO_TEST_CASE(zero_is_a_key) {
    SeenSet<std::uint64_t> small(4);
    BOOST_TEST(!small.contains(0));
    BOOST_TEST(small.insert(0));
    BOOST_TEST(!small.insert(0));
    SeenSet<Hash128> large(4);
    BOOST_TEST(large.insert({}));
    BOOST_TEST(large.contains({}));
}

BOOST_AUTO_TEST_CASE(a_document_costs_seventeen_bytes) {
    // 17/16 of 16 bytes a key, and a spill of 1024 slots and one that do not grow.
    BOOST_TEST(SeenSet<Hash128>(1 << 20).bytes() == (1 << 20) * 17 + 1025 * 16);
}
