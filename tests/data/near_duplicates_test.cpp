#include "data/near_duplicates.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <string>

using namespace rf;

namespace {

std::u32string random_text(std::mt19937& draw, std::size_t n) {
    std::u32string text(n, U' ');
    for (char32_t& c : text) c = 0x4E00 + draw() % 20000;
    return text;
}

std::int64_t equal_bands(const std::u32string& a, const std::u32string& b, const NearDuplicateInput& in) {
    const auto x = band_keys(a, in), y = band_keys(b, in);
    BOOST_REQUIRE(static_cast<std::int64_t>(x.size()) == in.bands);
    std::int64_t equal = 0;
    for (std::size_t i = 0; i < x.size(); ++i) equal += x[i] == y[i];
    return equal;
}

double jaccard(const std::u32string& a, const std::u32string& b, std::size_t n) {
    std::set<std::u32string> x, y, both;
    for (std::size_t i = 0; i + n <= a.size(); ++i) x.insert(a.substr(i, n));
    for (std::size_t i = 0; i + n <= b.size(); ++i) y.insert(b.substr(i, n));
    std::set_intersection(x.begin(), x.end(), y.begin(), y.end(), std::inserter(both, both.end()));
    return static_cast<double>(both.size()) / static_cast<double>(x.size() + y.size() - both.size());
}

}  // namespace

BOOST_AUTO_TEST_CASE(texts_that_differ_in_white_space_are_equal) {
    BOOST_TEST(equal_bands(U"今天 天气\n很好，我去公园玩。", U"今天天气很好，我　去公园玩。", {}) == NearDuplicateInput{}.bands);
}

BOOST_AUTO_TEST_CASE(short_and_empty_texts_have_keys_of_their_own) {
    for (const auto* text : {U"", U"好", U"好的", U" ", U"一二三四五", U"一二三四五六"}) BOOST_TEST(equal_bands(text, text, {}) == 14);
    BOOST_TEST(equal_bands(U"好", U"坏", {}) == 0);
    BOOST_TEST(equal_bands(U"", U"坏", {}) == 0);
}

BOOST_AUTO_TEST_CASE(unrelated_texts_share_no_band) {
    std::mt19937 draw(2);
    for (int i = 0; i < 100; ++i) BOOST_TEST(equal_bands(random_text(draw, 200), random_text(draw, 200), {}) == 0);
}

BOOST_AUTO_TEST_CASE(bands_are_equal_as_often_as_the_similarity_says) {
    // One minimum is equal with probability s, a band with s^rows. Minima of one permutation are correlated negatively if at all, so
    // the binomial deviation is an upper bound; five of them.
    std::mt19937 draw(3);
    for (const std::size_t shared : {900U, 700U}) {
        const NearDuplicateInput in{.bands = 16, .rows = 2};
        double expected = 0, variance = 0;
        std::int64_t equal = 0;
        for (int pair = 0; pair < 60; ++pair) {
            const std::u32string common = random_text(draw, shared), a = common + random_text(draw, 100), b = common + random_text(draw, 100);
            const double p = std::pow(jaccard(a, b, 5), 2);
            expected += p * 16;
            variance += p * (1 - p) * 16;
            equal += equal_bands(a, b, in);
        }
        BOOST_TEST(std::abs(static_cast<double>(equal) - expected) < 5 * std::sqrt(variance), equal << " equal bands, expected " << expected);
    }
}

BOOST_AUTO_TEST_CASE(borrowed_minima_of_short_texts_keep_the_probability) {
    // 30 n-grams in 32 bins: two bins of five are empty and borrow. Borrowed bins repeat others, which widens the spread: sixteen
    // independent minima a pair are counted instead of 32.
    std::mt19937 draw(4);
    const NearDuplicateInput in{.bands = 32, .rows = 1};
    double expected = 0, variance = 0;
    std::int64_t equal = 0;
    for (int pair = 0; pair < 300; ++pair) {
        const std::u32string common = random_text(draw, 24), a = common + random_text(draw, 10), b = common + random_text(draw, 10);
        const double p = jaccard(a, b, 5);
        expected += p * 32;
        variance += p * (1 - p) * 32 * 2;
        equal += equal_bands(a, b, in);
    }
    BOOST_TEST(std::abs(static_cast<double>(equal) - expected) < 5 * std::sqrt(variance), equal << " equal minima, expected " << expected);
}
