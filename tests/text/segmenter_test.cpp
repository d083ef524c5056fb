#include "text/segmenter.hpp"

#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

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

BOOST_AUTO_TEST_CASE(a_character_that_only_begins_longer_words_is_unknown_alone) {
    // However improbable, the word wins where it stands: jieba compares words of its dictionary only.
    BOOST_TEST(words(JiebaSegmenter("甲乙 1\n乙 100000\n", "d"), U"甲乙甲") == "甲乙/甲");
    BOOST_TEST(words(JiebaSegmenter("甲乙丙丁戊 1\n乙 100000\n丙丁戊 9\n", "d"), U"甲乙丙丁戊乙甲乙丙丁") == "甲乙丙丁戊/乙/甲/乙/丙/丁");
}

/// What the class says it does, over the whole text at once; words have at most six characters.
std::string plain_words(const std::map<std::u32string, double>& counts, std::u32string_view text) {
    double total = 0;
    for (const auto& [word, count] : counts) total += count;
    const auto in_block = [](char32_t c) { return (c >= 0x4E00 && c <= 0x9FD5) || (c >= 'a' && c <= 'z'); };
    std::vector<double> best(text.size() + 1, 0);
    std::vector<std::size_t> next(text.size());
    for (std::size_t i = text.size(); i-- > 0;) {
        next[i] = i + 1;
        if (!in_block(text[i])) continue;
        const auto follows = [&](std::size_t end) { return end < text.size() && in_block(text[end]) ? best[end] : 0; };
        best[i] = std::log(1.0) - std::log(total) + follows(i + 1);
        bool found = false;
        for (std::size_t end = i + 1; end <= std::min(text.size(), i + 6) && in_block(text[end - 1]); ++end) {
            const auto at = counts.find(std::u32string(text.substr(i, end - i)));
            if (at == counts.end()) continue;
            const double sum = std::log(at->second) - std::log(total) + follows(end);
            if (found && sum < best[i]) continue;
            best[i] = sum;
            next[i] = end;
            found = true;
        }
    }
    std::string out;
    bool joins = false;
    for (std::size_t i = 0; i < text.size(); i = next[i]) {
        const bool single = next[i] == i + 1 && text[i] >= 'a' && text[i] <= 'z';
        if (i != 0 && !(single && joins)) out += '/';
        append_utf8(text.substr(i, next[i] - i), out);
        joins = single;
    }
    return out;
}

BOOST_AUTO_TEST_CASE(long_texts_are_cut_as_their_definition_says) {
    std::mt19937 draw(3);
    for (int round = 0; round < 20; ++round) {
        const auto character = [&] { return draw() % 4 == 0 ? U'x' + draw() % 2 : U'甲' + draw() % 4; };
        std::map<std::u32string, double> counts;
        for (int i = 0; i < 25; ++i) {
            std::u32string word(1 + draw() % 6, U' ');
            for (char32_t& c : word) c = character();
            counts.emplace(word, 1 + draw() % 50);
        }
        std::string dictionary;
        for (const auto& [word, count] : counts) dictionary += encode_utf8(word) + " " + std::to_string(static_cast<int>(count)) + "\n";
        std::u32string text(3000, U' ');
        const std::uint32_t part = round % 2 ? 700 : 7;  // blocks shorter and longer than what is worked on at once
        for (char32_t& c : text) c = draw() % part == 0 ? U'。' : draw() % part == 1 ? U'龍' : character();
        for (const std::size_t size : {0U, 1U, 2U, 3U, 255U, 256U, 257U, 258U, 3000U})
            BOOST_REQUIRE(words(JiebaSegmenter(dictionary, "d"), std::u32string_view(text).substr(0, size)) == plain_words(counts, std::u32string_view(text).substr(0, size)));
    }
}

BOOST_AUTO_TEST_CASE(a_count_of_zero_is_no_word) {
    BOOST_TEST(words(JiebaSegmenter("中国 0\n甲 3\n", "d"), U"中国甲") == "中/国/甲");
}

BOOST_AUTO_TEST_CASE(of_a_word_given_twice_the_last_count_stands) {
    BOOST_TEST(words(JiebaSegmenter("研究 10\n研究生 90\n生命 10\n命 90\n研究生 5\n命 5\n", "d"), U"研究生命") == "研究/生命");
    BOOST_TEST(words(JiebaSegmenter("中国 5\n甲 3\n中国 0\n", "d"), U"中国甲") == "中/国/甲");
}

BOOST_AUTO_TEST_CASE(every_character_alone_and_in_a_row) {
    const JiebaSegmenter segmenter("中国 5\n", "d");
    std::u32string all;
    for (char32_t c = 0; c < 0x30000; ++c) all += c;
    all += U'\U0010FFFF';
    std::vector<std::uint8_t> starts;
    segmenter.segment(all, starts);
    const auto joins = [](char32_t c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
    for (std::size_t i = 1; i < all.size(); ++i) BOOST_REQUIRE(starts[i] == !(joins(all[i]) && joins(all[i - 1])));
    for (const char32_t c : all) {
        if (c == U'中' || c == U'国') continue;  // 中国 is a word
        BOOST_REQUIRE(words(segmenter, std::u32string{U'中', c, U'国'}) == encode_utf8(std::u32string{U'中', U'/', c, U'/', U'国'}));
    }
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
