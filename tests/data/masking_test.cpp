#include "data/masking.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <random>

using namespace rf;

namespace {

/// A document of words of one to three tokens; ids 200 … 11999.
struct Made {
    std::vector<std::uint16_t> tokens;
    std::vector<std::uint8_t> bits;
    std::vector<std::int64_t> words;  ///< first token of each, and the end
    explicit Made(std::int64_t count, unsigned seed = 1) {
        std::mt19937 draw(seed);
        for (std::int64_t w = 0; w < count; ++w) {
            words.push_back(static_cast<std::int64_t>(tokens.size()));
            for (unsigned n = 1 + draw() % 3; n > 0; --n) tokens.push_back(static_cast<std::uint16_t>(200 + draw() % 11800));
        }
        words.push_back(static_cast<std::int64_t>(tokens.size()));
        bits.assign(tokens.size() / 8 + 2, 0);
        for (std::size_t w = 0; w + 1 < words.size(); ++w) {
            const auto bit = static_cast<std::size_t>(words[w] + shift);
            bits[bit / 8] = static_cast<std::uint8_t>(bits[bit / 8] | 1 << (bit % 8));
        }
    }
    static constexpr std::int64_t shift = 5;  ///< the document begins inside a byte of bits
    Corpus::Document document() const { return {tokens, bits.data(), shift}; }
    std::int64_t length() const { return static_cast<std::int64_t>(tokens.size()); }
};

constexpr std::int64_t vocab_size = 12000;

Example example(const Made& made, std::int64_t max_length, const Masking& masking, std::uint64_t seed = 1, std::uint64_t sample = 0,
                Window window = Window::head) {
    Example out;
    make_example(made.document(), max_length, window, masking, {}, vocab_size, seed, sample, out);
    return out;
}

/// Five standard deviations of a binomial count: met by chance by 6 of 10 million correct programs.
void check_share(std::int64_t count, std::int64_t n, double p) {
    const double mean = static_cast<double>(n) * p, deviation = std::sqrt(mean * (1 - p));
    BOOST_TEST(std::abs(static_cast<double>(count) - mean) <= 5 * deviation, count << " of " << n << " is not a share of " << p);
}

}  // namespace

BOOST_AUTO_TEST_CASE(words_are_masked_kept_and_replaced_in_their_shares_and_whole) {
    const Made made(100000);
    const Masking masking;
    const Example e = example(made, made.length() + 2, masking);
    BOOST_REQUIRE(static_cast<std::int64_t>(e.ids.size()) == made.length() + 2);
    BOOST_TEST(e.ids.front() == 101);
    BOOST_TEST(e.ids.back() == 102);
    std::vector<bool> predicted(e.ids.size(), false);
    for (std::size_t i = 0; i < e.rows.size(); ++i) {
        predicted[static_cast<std::size_t>(e.rows[i])] = true;
        BOOST_REQUIRE(e.targets[i] == made.tokens[static_cast<std::size_t>(e.rows[i] - 1)]);
        BOOST_REQUIRE((i == 0 || e.rows[i] > e.rows[i - 1]));
    }
    std::int64_t masked = 0, kept = 0, replaced = 0, replaced_tokens = 0;
    double sum = 0;
    const auto words = static_cast<std::int64_t>(made.words.size()) - 1;
    for (std::int64_t w = 0; w < words; ++w) {
        const auto begin = static_cast<std::size_t>(made.words[static_cast<std::size_t>(w)]);
        const auto end = static_cast<std::size_t>(made.words[static_cast<std::size_t>(w) + 1]);
        std::size_t marks = 0, same = 0, targets = 0;
        for (std::size_t t = begin; t < end; ++t) {
            targets += predicted[t + 1];
            marks += e.ids[t + 1] == 103;
            same += e.ids[t + 1] == made.tokens[t];
        }
        BOOST_REQUIRE((targets == 0 || targets == end - begin));  // whole words
        if (targets == 0) {
            BOOST_REQUIRE(same == end - begin);
            continue;
        }
        masked += marks == end - begin;
        kept += same == end - begin;
        if (marks == end - begin || same == end - begin) continue;
        ++replaced;
        for (std::size_t t = begin; t < end; ++t) {
            BOOST_REQUIRE((e.ids[t + 1] >= 1 && e.ids[t + 1] < vocab_size));
            sum += e.ids[t + 1];
            ++replaced_tokens;
        }
    }
    check_share(masked, words, masking.mask);
    check_share(kept, words, masking.keep);
    check_share(replaced, words, masking.random);
    // Uniform in 1 … V-1: mean V/2, variance (V-1)²/12; five deviations of the mean.
    const double n = static_cast<double>(replaced_tokens);
    BOOST_TEST(std::abs(sum / n - vocab_size / 2.0) < 5 * vocab_size / std::sqrt(12 * n));
}

BOOST_AUTO_TEST_CASE(without_whole_words_every_token_is_drawn_by_itself) {
    const Made made(100000);
    const Example e = example(made, made.length() + 2, {.whole_word = false});
    check_share(static_cast<std::int64_t>(e.rows.size()), made.length(), 0.15);
    std::int64_t halves = 0;  // words of which a part is predicted
    std::size_t row = 0;
    for (std::size_t w = 0; w + 1 < made.words.size(); ++w) {
        std::int64_t targets = 0;
        for (; row < e.rows.size() && e.rows[row] - 1 < made.words[w + 1]; ++row) ++targets;
        halves += targets > 0 && targets < made.words[w + 1] - made.words[w];
    }
    // Words of 2 and 3 tokens, a third each: 1 - 0.15^n - 0.85^n of them.
    check_share(halves, static_cast<std::int64_t>(made.words.size()) - 1, ((1 - .15 * .15 - .85 * .85) + (1 - std::pow(.15, 3) - std::pow(.85, 3))) / 3);
}

BOOST_AUTO_TEST_CASE(an_example_is_a_pure_function_of_seed_and_sample) {
    const Made made(300);
    for (const Window window : {Window::head, Window::random}) {
        const Example a = example(made, 128, {}, 7, 40, window), b = example(made, 128, {}, 7, 40, window);
        BOOST_TEST((a.ids == b.ids && a.rows == b.rows && a.targets == b.targets));
        BOOST_TEST((example(made, 128, {}, 8, 40, window).ids != a.ids));
        BOOST_TEST((example(made, 128, {}, 7, 41, window).ids != a.ids));
        BOOST_TEST((example(made, 128, {}, 7, 40 + (std::uint64_t{1} << 32), window).ids != a.ids));  // all 64 bits count
    }
}

BOOST_AUTO_TEST_CASE(all_and_nothing_are_possible_shares) {
    const Made made(50);
    const Example none = example(made, 512, {.mask = 0, .keep = 0, .random = 0}), all = example(made, 512, {.mask = 1, .keep = 0, .random = 0});
    BOOST_TEST(none.rows.empty());
    BOOST_TEST(static_cast<std::int64_t>(all.rows.size()) == made.length());
    for (std::size_t i = 1; i + 1 < all.ids.size(); ++i) BOOST_TEST(all.ids[i] == 103);
}

BOOST_AUTO_TEST_CASE(long_documents_are_read_from_the_head_or_a_drawn_word) {
    const Made made(300);
    const Masking nothing{.mask = 0, .keep = 0, .random = 0};
    BOOST_TEST(example_length(made.document(), 128) == 128);
    BOOST_TEST(example_length(made.document(), 10000) == made.length() + 2);
    const Example head = example(made, 128, nothing);
    BOOST_TEST((std::vector<std::int32_t>(head.ids.begin() + 1, head.ids.end() - 1) == std::vector<std::int32_t>(made.tokens.begin(), made.tokens.begin() + 126)));
    std::vector<std::int64_t> begins;
    for (std::uint64_t sample = 0; sample < 50; ++sample) {
        const Example e = example(made, 128, nothing, 1, sample, Window::random);
        BOOST_REQUIRE(e.ids.size() == 128U);
        std::int64_t begin = 0;
        const auto fits = [&](std::int64_t at) { return std::equal(e.ids.begin() + 1, e.ids.end() - 1, made.tokens.begin() + at); };
        while (begin + 126 <= made.length() && !fits(begin)) ++begin;
        BOOST_REQUIRE(begin + 126 <= made.length());
        BOOST_TEST(std::count(made.words.begin(), made.words.end(), begin) == 1);  // at the start of a word
        begins.push_back(begin);
    }
    std::sort(begins.begin(), begins.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
    BOOST_TEST(begins.size() > 20U);
}
