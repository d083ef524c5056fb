#include "text/unicode.hpp"

#include <boost/test/unit_test.hpp>

using namespace rf;

BOOST_AUTO_TEST_CASE(utf8_goes_there_and_back) {
    const std::u32string all = U"a\u007F\u0080\u07FF\u0800\uFFFF\U00010000\U0010FFFF中";
    const std::string bytes = encode_utf8(all);
    BOOST_TEST((decode_utf8(bytes) == all));
    BOOST_TEST((utf8_offsets(all) == std::vector<std::int64_t>{0, 1, 2, 4, 6, 9, 12, 16, 20, 23}));
    BOOST_TEST(decode_utf8("").empty());
}

BOOST_AUTO_TEST_CASE(malformed_utf8_is_an_error_that_names_the_byte) {
    const std::pair<std::string, std::int64_t> cases[] = {
        {"ab\xFF", 2},          {"\x80", 0},             // no first byte
        {"\xC0\xAF", 0},        {"\xE0\x80\xAF", 0},     // overlong
        {"\xF0\x80\x80\xAF", 0}, {"a\xC1\xBF", 1},
        {"\xED\xA0\x80", 0},    {"\xED\xBF\xBF", 0},     // surrogates
        {"\xF4\x90\x80\x80", 0}, {"\xF5\x80\x80\x80", 0},  // above U+10FFFF
        {"中\xE4\xB8", 3},      {"\xC3(", 0},            // cut, and cut by another character
        {"\xF0\x9F\x98", 0},
    };
    for (const auto& [text, at] : cases) {
        std::int64_t found = -1;
        try {
            decode_utf8(text);
        } catch (const Utf8Error& e) {
            found = e.byte_offset;
        }
        BOOST_TEST(found == at);
    }
}

BOOST_AUTO_TEST_CASE(classes_are_berts) {
    for (const char32_t c : U"一\u9FFF\u3400\U00020000\uF900\U0002F800") {
        if (c) BOOST_TEST(unicode::is_cjk(c));
    }
    for (const char32_t c : U"あア한。Ａ") BOOST_TEST(!unicode::is_cjk(c));
    for (const char32_t c : U"!/:@[`{~。、“《—") {
        if (c) BOOST_TEST(unicode::is_punctuation(c));
    }
    for (const char32_t c : U"a0中¥€") BOOST_TEST(!unicode::is_punctuation(c));
    for (const char32_t c : U" \t\n\r\u00A0\u3000\u2003") {
        if (c) BOOST_TEST(unicode::is_space(c));
    }
    for (const char32_t c : U"\u0001\u007F\u200B\u200D\uFEFF\uFFFD\u00AD") {
        if (c) BOOST_TEST(unicode::is_control(c));
    }
    BOOST_TEST(unicode::is_control(0));
    BOOST_TEST(unicode::is_nonspacing_mark(0x301));
    BOOST_TEST(!unicode::is_nonspacing_mark(0x903));  // a spacing mark (Mc) stays
}

BOOST_AUTO_TEST_CASE(lower_case_and_full_decomposition) {
    BOOST_TEST((unicode::lower_and_decompose(U'É') == U"e\u0301"));
    BOOST_TEST((unicode::lower_and_decompose(U'ǖ') == U"u\u0308\u0304"));      // twice composed
    BOOST_TEST((unicode::lower_and_decompose(U'한') == U"\u1112\u1161\u11AB"));
    BOOST_TEST((unicode::lower_and_decompose(0xF900) == U"豈"));                // compatibility ideograph
    BOOST_TEST((unicode::lower_and_decompose(U'Ａ') == U"ａ"));                 // canonical only: full width stays
    BOOST_TEST((unicode::lower_and_decompose(U'中') == U"中"));
}

BOOST_AUTO_TEST_CASE(a_capital_sigma_is_final_between_a_letter_and_none) {
    BOOST_TEST(unicode::is_final_sigma(U"ΟΔΟΣ", 3));
    BOOST_TEST(unicode::is_final_sigma(U"ΟΣ.", 1));
    BOOST_TEST(!unicode::is_final_sigma(U"ΣΟ", 0));
    BOOST_TEST(!unicode::is_final_sigma(U"ΟΣΟ", 1));
    BOOST_TEST(!unicode::is_final_sigma(U"Σ", 0));
    BOOST_TEST(unicode::is_final_sigma(U"Ο\u0301Σ\u0301", 2));  // marks are looked through
}
