#include "text/segmenter.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;

namespace {

std::string words(const Segmenter& segmenter, std::u32string_view text) {
    std::vector<std::uint8_t> starts;
    segmenter.segment(text, starts);
    BOOST_REQUIRE(starts.size() == text.size());
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (starts[i] && i) out += '/';
        append_utf8(text.substr(i, 1), out);
    }
    return out;
}

std::string refusal(const std::string& dictionary) {
    try {
        const JiebaSegmenter segmenter(dictionary, "dict.txt");
    } catch (const UsageError& e) {
        return e.what();
    }
    return "accepted";
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_most_probable_path_wins) {
    // 研究|生命 = 10·10 beats 研究生|命 = 5·5 of the same total.
    BOOST_TEST(words(JiebaSegmenter("研究 10 v\n研究生 5 n\n生命 10 n\n命 5 n\n", "d"), U"研究生命") == "研究/生命");
    // 90·90 for the other cut.
    BOOST_TEST(words(JiebaSegmenter("研究 10 v\n研究生 90 n\n生命 10 n\n命 90 n\n", "d"), U"研究生命") == "研究生/命");
}

BOOST_AUTO_TEST_CASE(of_equal_probabilities_the_longer_first_word_wins) {
    BOOST_TEST(words(JiebaSegmenter("甲 5\n乙丙 5\n甲乙 5\n丙 5\n", "d"), U"甲乙丙") == "甲乙/丙");
}

BOOST_AUTO_TEST_CASE(what_the_dictionary_lacks_is_cut_into_characters) {
    BOOST_TEST(words(JiebaSegmenter("中国 5\n", "d"), U"天中国地") == "天/中国/地");
}

BOOST_AUTO_TEST_CASE(letters_and_digits_in_a_row_are_one_word) {
    const JiebaSegmenter segmenter("中国 5\nab 7\n", "d");
    BOOST_TEST(words(segmenter, U"中国xyz12中") == "中国/xyz12/中");
    BOOST_TEST(words(segmenter, U"x-y") == "x/-/y");
    BOOST_TEST(words(segmenter, U"xabx") == "x/ab/x");  // a word of the dictionary is no single letter
}

BOOST_AUTO_TEST_CASE(blanks_and_punctuation_part_words) {
    const JiebaSegmenter segmenter("中国 5\n", "d");
    BOOST_TEST(words(segmenter, U"中 国，中国 。") == "中/ /国/，/中国/ /。");
    BOOST_TEST(words(segmenter, U"").empty());
}

BOOST_AUTO_TEST_CASE(a_count_of_zero_is_no_word) {
    BOOST_TEST(words(JiebaSegmenter("中国 0\n甲 3\n", "d"), U"中国甲") == "中/国/甲");
}

BOOST_AUTO_TEST_CASE(bad_dictionaries_are_refused_with_the_line) {
    BOOST_TEST(refusal("中国 5\n甲\n").find("dict.txt:2: expected \"word count [tag]\"") == 0U);
    BOOST_TEST(refusal("中国 x\n").find("dict.txt:1:") == 0U);
    BOOST_TEST(refusal("中国 5\n\xFF 4\n").find("dict.txt:2: not UTF-8") == 0U);
    BOOST_TEST(refusal("").find("dict.txt: the dictionary is empty") == 0U);
    BOOST_CHECK_THROW(make_segmenter("jieba", "nowhere.txt"), UsageError);
    BOOST_CHECK_THROW(make_segmenter("hanlp", ""), UsageError);
}

BOOST_AUTO_TEST_CASE(the_dictionary_is_part_of_the_identity) {
    BOOST_TEST(JiebaSegmenter("甲 3\n", "d").identity() != JiebaSegmenter("甲 4\n", "d").identity());
    BOOST_TEST(make_segmenter("none", "")->identity() == "none");
}

BOOST_AUTO_TEST_CASE(tokens_begin_words_where_both_have_a_boundary) {
    const Vocabulary vocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n国\n人\nip\n##hone\n##13\n", "v");
    const Tokenizer tokenizer(vocabulary);
    const auto starts_of = [&](std::u32string_view text, const std::vector<std::uint8_t>& starts) {
        std::vector<std::int32_t> ids;
        std::vector<TokenSpan> spans;
        std::vector<std::uint8_t> out;
        tokenizer.encode(text, ids, spans);
        find_word_starts(vocabulary, ids, spans, starts, out);
        std::string digits;
        for (const std::uint8_t s : out) digits += s ? '1' : '0';
        return digits;
    };
    BOOST_TEST(starts_of(U"中国人", {1, 0, 1}) == "101");
    BOOST_TEST(starts_of(U"中国人", {0, 0, 1}) == "101");               // the first token always begins a word
    BOOST_TEST(starts_of(U"iphone13", {1, 0, 0, 0, 0, 0, 1, 0}) == "100");  // a piece never does
    BOOST_TEST(starts_of(U"中 国", {1, 1, 0}) == "11");                 // the boundary stood at the blank between
}
