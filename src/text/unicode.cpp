#include "text/unicode.hpp"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>

namespace rf {

namespace {

/// Length of the well-formed sequence of two or more bytes at p (its value in c), or 0.
int decode_long(const unsigned char* p, const unsigned char* end, char32_t& c) {
    const auto tail = [&](int i) { return p + i < end && (p[i] & 0xC0U) == 0x80U; };
    const unsigned char b = p[0];
    if (b >= 0xE0 && b < 0xF0) {
        if (!tail(1) || !tail(2)) return 0;
        c = ((b & 0x0FU) << 12) | ((p[1] & 0x3FU) << 6) | (p[2] & 0x3FU);
        return c < 0x800 || (c >= 0xD800 && c < 0xE000) ? 0 : 3;
    }
    if (b >= 0xC2 && b < 0xE0) {
        if (!tail(1)) return 0;
        c = ((b & 0x1FU) << 6) | (p[1] & 0x3FU);
        return 2;
    }
    if (b >= 0xF0 && b < 0xF5) {
        if (!tail(1) || !tail(2) || !tail(3)) return 0;
        c = ((b & 0x07U) << 18) | ((p[1] & 0x3FU) << 12) | ((p[2] & 0x3FU) << 6) | (p[3] & 0x3FU);
        return c < 0x10000 || c > 0x10FFFF ? 0 : 4;
    }
    return 0;
}

std::size_t utf8_size(char32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

}  // namespace

void decode_utf8(std::string_view text, std::u32string& out) {
    out.resize(text.size());  // never more characters than bytes
    char32_t* to = out.data();
    const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
    const unsigned char* end = begin + text.size();
    for (const unsigned char* p = begin; p < end;) {
        if (*p < 0x80) {
            *to++ = *p++;
            continue;
        }
        const int n = decode_long(p, end, *to);
        if (n == 0) throw Utf8Error(p - begin);
        p += n;
        ++to;
    }
    out.resize(static_cast<std::size_t>(to - out.data()));
}

std::u32string decode_utf8(std::string_view text) {
    std::u32string out;
    decode_utf8(text, out);
    return out;
}

void append_utf8(std::u32string_view text, std::string& out) {
    const auto put = [&](char32_t bits) { out.push_back(static_cast<char>(bits)); };
    for (const char32_t c : text) {
        switch (utf8_size(c)) {
            case 1: put(c); break;
            case 2: put(0xC0U | (c >> 6)), put(0x80U | (c & 0x3FU)); break;
            case 3: put(0xE0U | (c >> 12)), put(0x80U | ((c >> 6) & 0x3FU)), put(0x80U | (c & 0x3FU)); break;
            default:
                put(0xF0U | (c >> 18)), put(0x80U | ((c >> 12) & 0x3FU));
                put(0x80U | ((c >> 6) & 0x3FU)), put(0x80U | (c & 0x3FU));
        }
    }
}

std::string encode_utf8(std::u32string_view text) {
    std::string out;
    append_utf8(text, out);
    return out;
}

std::vector<std::int64_t> utf8_offsets(std::u32string_view text) {
    std::vector<std::int64_t> offsets;
    offsets.reserve(text.size() + 1);
    std::int64_t at = 0;
    for (const char32_t c : text) {
        offsets.push_back(at);
        at += static_cast<std::int64_t>(utf8_size(c));
    }
    offsets.push_back(at);
    return offsets;
}

namespace unicode {

namespace {
UChar32 icu(char32_t c) { return static_cast<UChar32>(c); }
std::uint32_t category_bit(char32_t c) { return U_GET_GC_MASK(icu(c)); }
bool within(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }
}  // namespace

bool is_cjk(char32_t c) {
    return within(c, 0x4E00, 0x9FFF) || within(c, 0x3400, 0x4DBF) || within(c, 0x20000, 0x2A6DF) ||
           within(c, 0x2A700, 0x2B73F) || within(c, 0x2B740, 0x2B81F) || within(c, 0x2B820, 0x2CEAF) ||
           within(c, 0xF900, 0xFAFF) || within(c, 0x2F800, 0x2FA1F);
}

bool is_punctuation(char32_t c) {
    return within(c, 33, 47) || within(c, 58, 64) || within(c, 91, 96) || within(c, 123, 126) ||
           (category_bit(c) & U_GC_P_MASK) != 0;
}

bool is_space(char32_t c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == 0x2028 || c == 0x2029 ||
           (category_bit(c) & U_GC_ZS_MASK) != 0;
}

bool is_control(char32_t c) { return c == 0 || c == 0xFFFD || (category_bit(c) & (U_GC_CC_MASK | U_GC_CF_MASK)) != 0; }

bool is_nonspacing_mark(char32_t c) { return (category_bit(c) & U_GC_MN_MASK) != 0; }

int combining_class(char32_t c) { return u_getCombiningClass(icu(c)); }

char32_t lower(char32_t c) { return static_cast<char32_t>(u_tolower(icu(c))); }

std::u32string lower_and_decompose(char32_t c) {
    // U+0130 is the one character whose lower case is two: i and U+0307, a mark that the tokenizer deletes.
    const UChar32 lower = u_tolower(icu(c));
    UErrorCode status = U_ZERO_ERROR;
    const UNormalizer2* nfd = unorm2_getNFDInstance(&status);
    UChar units[64];
    const std::int32_t n = unorm2_getDecomposition(nfd, lower, units, 64, &status);
    if (U_FAILURE(status)) fail("ICU cannot decompose U+", std::hex, static_cast<std::uint32_t>(c), ": ", u_errorName(status));
    if (n < 0) return {static_cast<char32_t>(lower)};
    std::u32string out;
    for (std::int32_t i = 0; i < n;) {
        UChar32 next = 0;
        U16_NEXT(units, i, n, next);
        out.push_back(static_cast<char32_t>(next));
    }
    return out;
}

bool is_final_sigma(std::u32string_view text, std::size_t at) {
    const auto ignorable = [&](std::size_t i) { return u_hasBinaryProperty(icu(text[i]), UCHAR_CASE_IGNORABLE) != 0; };
    const auto cased = [&](std::size_t i) { return u_hasBinaryProperty(icu(text[i]), UCHAR_CASED) != 0; };
    std::size_t before = at;
    while (before > 0 && ignorable(before - 1)) --before;
    if (before == 0 || !cased(before - 1)) return false;
    std::size_t after = at + 1;
    while (after < text.size() && ignorable(after)) ++after;
    return after == text.size() || !cased(after);
}

std::string version() { return U_UNICODE_VERSION; }

}  // namespace unicode
}  // namespace rf
