#include "text/tokenizer.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;

namespace {

const Vocabulary& vocabulary() {
    static const Vocabulary v("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n国\n,\nab\nabc\n##d\n##de\n##c\na\nσ\nς\n##ς\n[\n]\n豈\n\u1112\n##\u1161\n##\u11AB\n#\n",
                              "hand-made");
    return v;
}

/// Tokens joined by blanks.
std::string tokens(std::string_view text) {
    static const Tokenizer tokenizer(vocabulary());
    std::string out;
    for (const std::int32_t id : tokenizer.encode(text)) out += (out.empty() ? "" : " ") + vocabulary().token(id);
    return out;
}

}  // namespace

BOOST_AUTO_TEST_CASE(greedy_longest_pieces) {
    BOOST_TEST(tokens("abcde") == "abc ##de");
    BOOST_TEST(tokens("abd") == "ab ##d");
    BOOST_TEST(tokens("ABCDE") == "abc ##de");
    BOOST_TEST(tokens("").empty());
}

BOOST_AUTO_TEST_CASE(a_rest_without_a_piece_makes_the_whole_word_unknown) {
    BOOST_TEST(tokens("abcx") == "[UNK]");
    BOOST_TEST(tokens("abcab") == "[UNK]");  // ab begins words only
    BOOST_TEST(tokens("d") == "[UNK]");      // ##d continues words only
    BOOST_TEST(tokens("ab abcx ab") == "ab [UNK] ab");
    BOOST_TEST(tokens("人中") == "[UNK] 中");
}

BOOST_AUTO_TEST_CASE(chinese_and_punctuation_stand_alone) {
    BOOST_TEST(tokens("ab中国,ab") == "ab 中 国 , ab");
    BOOST_TEST(tokens("\xEF\xA4\x80") == "豈");  // U+F900 folds
}

BOOST_AUTO_TEST_CASE(accents_and_controls_go) {
    BOOST_TEST(tokens("ÁB\u0301c") == "abc");
    BOOST_TEST(tokens("a\u200Bb") == "ab");
    BOOST_TEST(tokens(std::string_view("a\0b", 3)) == "ab");
}

BOOST_AUTO_TEST_CASE(special_tokens_in_text_are_text) {
    BOOST_TEST(tokens("[MASK]") == "[ [UNK] ]");
    BOOST_TEST(tokens("##d") == "# # [UNK]");
}

BOOST_AUTO_TEST_CASE(words_of_more_than_200_characters_are_unknown) {
    const Vocabulary v("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\n", "hand-made");
    const Tokenizer tokenizer(v);
    BOOST_TEST(tokenizer.encode(std::string(200, 'a')).size() == 200U);
    BOOST_TEST((tokenizer.encode(std::string(201, 'a')) == std::vector<std::int32_t>{v.unknown()}));
    BOOST_TEST((tokenizer.encode(std::string(5000, 'a') + " a") == std::vector<std::int32_t>{v.unknown(), 5}));
}

BOOST_AUTO_TEST_CASE(sigma_and_hangul) {
    BOOST_TEST(tokens("ΣΣ") == "σ ##ς");
    BOOST_TEST(tokens("한") == "\u1112 ##\u1161 ##\u11AB");
}

BOOST_AUTO_TEST_CASE(spans_cover_the_characters_of_each_token) {
    const Tokenizer tokenizer(vocabulary());
    std::vector<std::int32_t> ids;
    std::vector<TokenSpan> spans;
    const std::u32string text = U"É ab\u0301cde中 xyz";
    tokenizer.encode(text, ids, spans);
    const std::vector<std::pair<std::int64_t, std::int64_t>> expected{{0, 1}, {2, 6}, {6, 8}, {8, 9}, {10, 13}};
    BOOST_REQUIRE(spans.size() == expected.size());
    for (std::size_t i = 0; i < spans.size(); ++i) {
        BOOST_TEST(spans[i].begin == expected[i].first);
        BOOST_TEST(spans[i].end == expected[i].second);
    }
    std::vector<std::int32_t> plain;
    tokenizer.encode(text, plain);
    BOOST_TEST((plain == ids));
}

BOOST_AUTO_TEST_CASE(malformed_text_is_refused) { BOOST_CHECK_THROW(tokens("ab\xC3"), Utf8Error); }
