#pragma once
/// UTF-8, and the Unicode properties the tokenizer asks for (from ICU). Text is worked on as code points.

#include "core/check.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

/// Malformed UTF-8. Callers add the file and line.
class Utf8Error : public Error {
public:
    explicit Utf8Error(std::int64_t byte_offset)
        : Error(message("not UTF-8 at byte ", byte_offset)), byte_offset(byte_offset) {}
    std::int64_t byte_offset;  ///< of the first byte of the malformed sequence
};

/// Replaces `out` by the code points of `text`. Overlong forms, surrogates and values above U+10FFFF are malformed.
void decode_utf8(std::string_view text, std::u32string& out);
std::u32string decode_utf8(std::string_view text);
void append_utf8(std::u32string_view text, std::string& out);
std::string encode_utf8(std::u32string_view text);
/// Byte where each code point starts, and the length at the end: [characters + 1].
std::vector<std::int64_t> utf8_offsets(std::u32string_view text);

namespace unicode {

/// The blocks BERT calls Chinese characters (bert4keras Tokenizer._is_cjk_character).
bool is_cjk(char32_t c);
/// ASCII 33-47, 58-64, 91-96, 123-126, or general category P*.
bool is_punctuation(char32_t c);
/// Blank, \t \n \r, category Zs, and U+2028, U+2029, which Python's str.split() takes for white space too.
bool is_space(char32_t c);
/// U+0000, U+FFFD, categories Cc and Cf.
bool is_control(char32_t c);
bool is_nonspacing_mark(char32_t c);  ///< category Mn
int combining_class(char32_t c);
/// The lower case where it is one character.
char32_t lower(char32_t c);
/// The full canonical decomposition of the lower case of one character. Greek capital sigma becomes U+03C3.
std::u32string lower_and_decompose(char32_t c);
/// Whether the capital sigma at text[at] ends a word (Unicode 3.13, Final_Sigma, as Python's str.lower() reads it).
bool is_final_sigma(std::u32string_view text, std::size_t at);
/// "15.0": of the tables in use.
std::string version();

}  // namespace unicode
}  // namespace rf
