#include "tasks/cmrc_score.hpp"

#include "text/unicode.hpp"

#include <algorithm>
#include <utility>

namespace rf::tasks {

namespace {

/// As Python's str.isspace(): what str.strip() and str.split() take away.
bool is_blank(char32_t c) { return unicode::is_space(c) || (c >= 0x0B && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85; }

/// Lower case, without white space at the ends, without punctuation. The script means to take out …… as well, and looks for it one
/// character at a time, so that … stays.
std::u32string plain(std::string_view text) {
    constexpr std::u32string_view punctuation = U"-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』";
    std::u32string all = decode_utf8(text);
    for (char32_t& c : all) c = unicode::lower(c);
    const auto first = std::find_if_not(all.begin(), all.end(), is_blank);
    const auto last = std::find_if_not(all.rbegin(), std::make_reverse_iterator(first), is_blank).base();
    std::u32string out;
    std::copy_if(first, last, std::back_inserter(out), [&](char32_t c) { return punctuation.find(c) == std::u32string_view::npos; });
    return out;
}

bool is_digit(char32_t c) { return (c >= U'0' && c <= U'9') || (c >= U'０' && c <= U'９'); }

/// Splits a clitic or a closing quote off the end of a word.
void put_word(std::u32string word, std::vector<std::u32string>& out) {
    if (word.empty()) return;
    for (const std::u32string_view end : {U"'s", U"'m", U"'d", U"'ll", U"'re", U"'ve", U"n't", U"'"}) {
        if (word.size() <= end.size() || !word.ends_with(end) || word[word.size() - end.size() - 1] == U'\'') continue;
        out.push_back(word.substr(0, word.size() - end.size()));
        out.emplace_back(end);
        return;
    }
    out.push_back(std::move(word));
}

/// The words of a stretch without Chinese characters.
void split_words(std::u32string_view text, std::vector<std::u32string>& out) {
    constexpr std::u32string_view alone = U";@#$%&?!()[]{}<>\"«»‘„", closing = U")]}>\"'»";
    std::u32string word;
    const auto is_last = [&](std::size_t i) {
        return std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i) + 1, text.end(), [&](char32_t c) { return is_blank(c) || closing.find(c) != closing.npos; });
    };
    const auto single = [&](std::u32string_view what) { put_word(std::exchange(word, {}), out), out.emplace_back(what); };
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char32_t c = text[i];
        const std::size_t dots = std::min(text.find_first_not_of(U'.', i), text.size()) - i;
        if (is_blank(c)) put_word(std::exchange(word, {}), out);
        else if (dots > 1) single(text.substr(i, dots)), i += dots - 1;
        else if (dots == 1 && i > 0 && is_last(i)) single(text.substr(i, 1));
        else if (alone.find(c) != std::u32string_view::npos) single(text.substr(i, 1));
        else if (c == U',' && (i + 1 == text.size() || !is_digit(text[i + 1]))) single(text.substr(i, 1));
        else word += c;
    }
    put_word(word, out);
}

/// Length of the longest run of segments that stands in both.
std::size_t longest_common(const std::vector<std::u32string>& a, const std::vector<std::u32string>& b) {
    std::size_t best = 0;
    std::vector<std::size_t> ending(b.size() + 1);  // of the runs that end with a's segment and b's
    for (const std::u32string& segment : a)
        for (std::size_t j = b.size(); j > 0; --j) {
            ending[j] = segment == b[j - 1] ? ending[j - 1] + 1 : 0;
            best = std::max(best, ending[j]);
        }
    return best;
}

}  // namespace

std::vector<std::u32string> cmrc_segments(std::string_view text) {
    std::vector<std::u32string> out;
    std::u32string between;
    for (const char32_t c : plain(text)) {
        if (c < 0x4E00 || c > 0x9FA5) {
            between += c;
            continue;
        }
        split_words(std::exchange(between, {}), out);
        out.emplace_back(1, c);
    }
    split_words(between, out);
    return out;
}

CmrcScore cmrc_score(std::string_view answer, const std::vector<std::string>& right) {
    CmrcScore out;
    const std::u32string given = plain(answer);
    const std::vector<std::u32string> segments = cmrc_segments(answer);
    for (const std::string& text : right) {
        if (plain(text) == given) out.exact_match = 1;
        const std::vector<std::u32string> wanted = cmrc_segments(text);
        const auto common = static_cast<double>(longest_common(wanted, segments));
        if (common == 0) continue;
        const double precision = common / static_cast<double>(segments.size()), recall = common / static_cast<double>(wanted.size());
        out.f1 = std::max(out.f1, 2 * precision * recall / (precision + recall));
    }
    return out;
}

}  // namespace rf::tasks
