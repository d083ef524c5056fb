#include "text/splitter.hpp"

#include <boost/test/unit_test.hpp>

#include <thread>

using namespace rf;
using namespace std::string_view_literals;

namespace {

/// Words as text, with the first and one past the last character of the original.
struct Words {
    struct Word {
        std::u32string text;
        std::size_t begin, end;
        bool operator==(const Word&) const = default;
    };
    std::vector<Word> words;
    Word open{};
    void letter(char32_t c, std::size_t at) {
        if (open.text.empty()) open.begin = at;
        open.text.push_back(c);
        open.end = at + 1;
    }
    void single(char32_t c, std::size_t at) {
        space();
        words.push_back({std::u32string(1, c), at, at + 1});
    }
    void space() {
        if (!open.text.empty()) words.push_back(std::exchange(open, {}));
    }
};

std::vector<Words::Word> split(std::u32string_view text) {
    static const Splitter splitter;
    Words sink;
    splitter.split(text, sink);
    return sink.words;
}

std::vector<std::u32string> words_of(std::u32string_view text) {
    std::vector<std::u32string> out;
    for (const auto& word : split(text)) out.push_back(word.text);
    return out;
}
using List = std::vector<std::u32string>;

}  // namespace

BOOST_AUTO_TEST_CASE(words_end_at_white_space_punctuation_and_chinese) {
    BOOST_TEST((words_of(U"  Hello,world\t中文ab\u3000c ") == List{U"hello", U",", U"world", U"中", U"文", U"ab", U"c"}));
    BOOST_TEST(words_of(U"").empty());
    BOOST_TEST(words_of(U" \n\u3000").empty());
}

BOOST_AUTO_TEST_CASE(words_know_the_characters_they_come_from) {
    const auto words = split(U"É中\u200Bx\u0301Yz。");
    BOOST_TEST((words == std::vector<Words::Word>{{U"e", 0, 1}, {U"中", 1, 2}, {U"xyz", 3, 7}, {U"。", 7, 8}}));
}

BOOST_AUTO_TEST_CASE(marks_and_controls_vanish_inside_words) {
    BOOST_TEST((words_of(U"a\u0301b\u200Bc\0d\uFFFDe"sv) == List{U"abcde"}));
    BOOST_TEST((words_of(U"\u0301\u200B") == List{}));
}

BOOST_AUTO_TEST_CASE(compatibility_ideographs_fold_and_stand_alone) {
    BOOST_TEST((words_of(U"a\uF900b\U0002F800") == List{U"a", U"豈", U"b", U"丽"}));
}

BOOST_AUTO_TEST_CASE(hangul_falls_into_letters_of_one_word) {
    BOOST_TEST((words_of(U"한국") == List{U"\u1112\u1161\u11AB\u1100\u116E\u11A8"}));
}

BOOST_AUTO_TEST_CASE(sigma_follows_its_neighbours) {
    BOOST_TEST((words_of(U"ΟΔΟΣ ΣΑΣ") == List{U"οδος", U"σας"}));
}

BOOST_AUTO_TEST_CASE(kept_combining_characters_are_put_in_canonical_order) {
    // U+1D165 (class 216, Mc) and U+1D16D (class 226, Mc) are marks that are not Mn.
    BOOST_TEST((words_of(U"a\U0001D16D\U0001D165b") == words_of(U"a\U0001D165\U0001D16Db")));
    BOOST_TEST((words_of(U"a\U0001D16D\U0001D165b") == List{U"a\U0001D165\U0001D16Db"}));
}

BOOST_AUTO_TEST_CASE(threads_may_share_a_splitter) {
    const Splitter splitter;
    std::u32string text;
    for (char32_t c = 1; c < 0x3000; ++c) text.push_back(c);
    std::vector<Words> sinks(4);
    {
        std::vector<std::jthread> threads;
        for (Words& sink : sinks) threads.emplace_back([&] { splitter.split(text, sink); });
    }
    for (const Words& sink : sinks) BOOST_TEST((sink.words == sinks[0].words));
    BOOST_TEST(sinks[0].words.size() > 100U);
}
