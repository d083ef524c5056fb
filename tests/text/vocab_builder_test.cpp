#include "text/vocab_builder.hpp"

#include "core/check.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>

using namespace rf;

namespace {
std::size_t place(const std::vector<std::string>& vocab, const std::string& token) {
    return static_cast<std::size_t>(std::find(vocab.begin(), vocab.end(), token) - vocab.begin());
}
}  // namespace

BOOST_AUTO_TEST_CASE(specials_have_the_released_ids) {
    VocabBuilder builder;
    builder.add("中");
    const auto vocab = builder.build(200, 1);
    BOOST_TEST(vocab[0] == "[PAD]");
    BOOST_TEST(vocab[1] == "[unused1]");
    BOOST_TEST(vocab[99] == "[unused99]");
    BOOST_TEST((std::vector<std::string>(vocab.begin() + 100, vocab.begin() + 106) ==
                std::vector<std::string>{"[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"}));
    BOOST_TEST(vocab[106] == "中");
    BOOST_TEST(vocab.size() == 107U);
}

BOOST_AUTO_TEST_CASE(characters_come_by_frequency_then_code_point) {
    VocabBuilder builder;
    builder.add("丙丙丙甲甲乙乙丁");
    const auto vocab = builder.build(200, 1);
    BOOST_TEST((std::vector<std::string>(vocab.begin() + 106, vocab.end()) == std::vector<std::string>{"丙", "乙", "甲", "丁"}));
}

BOOST_AUTO_TEST_CASE(rare_ones_are_left_out) {
    VocabBuilder builder;
    builder.add("甲甲乙");
    const auto vocab = builder.build(200, 2);
    BOOST_TEST(place(vocab, "甲") == 106U);
    BOOST_TEST(vocab.size() == 107U);
}

BOOST_AUTO_TEST_CASE(frequent_neighbours_are_merged_into_pieces) {
    VocabBuilder builder;
    for (int i = 0; i < 10; ++i) builder.add("low lower lowest");
    const auto vocab = builder.build(300, 2);
    for (const char* token : {"l", "##o", "##w", "##ow", "low", "lower", "lowest"}) BOOST_TEST(place(vocab, token) < vocab.size(), token);
    // "##o ##w" and "l ##o" both occur 30 times: the first in code points is merged first, then "l ##ow".
    BOOST_TEST(place(vocab, "##ow") < place(vocab, "low"));
    BOOST_TEST(place(vocab, "lo") == vocab.size());
    BOOST_TEST(std::count(vocab.begin(), vocab.end(), "low") == 1);
}

BOOST_AUTO_TEST_CASE(the_result_depends_on_the_counts_alone) {
    VocabBuilder one, two;
    const std::vector<std::string> lines{"Hello world 你好", "hello 世界 word", "worlds helloed 你们", "abc abd abe"};
    for (const auto& line : lines) one.add(line);
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) two.add(*line);
    BOOST_TEST((one.build(180, 1) == two.build(180, 1)));
    BOOST_TEST(one.words_seen() == two.words_seen());
}

BOOST_AUTO_TEST_CASE(the_size_is_kept) {
    VocabBuilder builder;
    for (char32_t c = 0x4E00; c < 0x4E00 + 300; ++c) {
        std::string text;
        text += static_cast<char>(0xE0 | (c >> 12)), text += static_cast<char>(0x80 | ((c >> 6) & 63)), text += static_cast<char>(0x80 | (c & 63));
        builder.add(text);
    }
    BOOST_TEST(builder.build(150, 1).size() <= 150U);
    BOOST_CHECK_THROW(builder.build(106, 1), Error);
}
