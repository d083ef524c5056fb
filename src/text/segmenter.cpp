#include "text/segmenter.hpp"

#include "io/files.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <unordered_map>

namespace rf {

namespace {

class SingleSegmenter final : public Segmenter {
public:
    explicit SingleSegmenter(std::string name) : name_(std::move(name)) {}
    void segment(std::u32string_view text, std::vector<std::uint8_t>& starts) const override { starts.assign(text.size(), 1); }
    std::string identity() const override { return name_; }

private:
    std::string name_;
};

bool is_alphanumeric(char32_t c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// jieba 0.42.1, re_han_default: what stands in a block.
bool in_block(char32_t c) {
    if (c >= 0x4E00) return c <= 0x9FD5;
    return is_alphanumeric(c) || c == '+' || c == '#' || c == '&' || c == '.' || c == '_' || c == '%' || c == '-';
}

std::string read_dictionary(const std::string& path) {
    if (!std::filesystem::is_regular_file(path))
        fail_usage("segmenter dictionary ", path, " is not a file (install the package python3-jieba, name another dictionary, or use the segmenter \"none\")");
    return read_file(path);
}

std::string_view strip(std::string_view line) {
    while (!line.empty() && static_cast<unsigned char>(line.back()) <= ' ') line.remove_suffix(1);
    while (!line.empty() && static_cast<unsigned char>(line.front()) <= ' ') line.remove_prefix(1);
    return line;
}

struct Word {
    std::size_t begin = 0, size = 0;  ///< in the pool of characters
    std::int64_t count = 0;
};

}  // namespace

std::unique_ptr<Segmenter> make_segmenter(const std::string& name, const std::string& dictionary) {
    if (name == "jieba") return std::make_unique<JiebaSegmenter>(dictionary);
    if (name == "none" || name == "given") return std::make_unique<SingleSegmenter>(name);
    fail_usage("segmenter \"", name, "\" is not known (jieba, none, given)");
}

JiebaSegmenter::JiebaSegmenter(const std::string& dictionary) : JiebaSegmenter(read_dictionary(dictionary), dictionary) {}

JiebaSegmenter::JiebaSegmenter(std::string_view content, const std::string& name)
    : digest_(rf::digest(content.data(), static_cast<std::int64_t>(content.size()))) {
    std::u32string pool, characters;
    std::unordered_map<std::string_view, std::size_t> at;  // a word given twice: the last count stands, both are in the total
    std::vector<Word> words;
    at.reserve(content.size() / 12);
    std::int64_t total = 0, line_number = 0;
    for (std::size_t begin = 0; begin < content.size();) {
        const std::size_t end = std::min(content.find('\n', begin), content.size());
        const std::string_view line = strip(content.substr(begin, end - begin));
        begin = end + 1;
        ++line_number;
        const std::size_t blank = line.find(' ');
        std::int64_t count = -1;
        if (blank != std::string_view::npos) std::from_chars(line.data() + blank + 1, line.data() + line.size(), count);
        if (blank == 0 || count < 0) fail_usage(name, ":", line_number, ": expected \"word count [tag]\"");
        try {
            decode_utf8(line.substr(0, blank), characters);
        } catch (const Utf8Error& error) {
            fail_usage(name, ":", line_number, ": ", error.what());
        }
        total += count;
        const auto [place, fresh] = at.emplace(line.substr(0, blank), words.size());
        if (!fresh) {
            words[place->second].count = count;
            continue;
        }
        words.push_back({pool.size(), characters.size(), count});
        pool += characters;
    }
    if (words.empty() || total == 0) fail_usage(name, ": the dictionary is empty");

    const double log_total = std::log(static_cast<double>(total));
    unknown_ = std::log(1.0) - log_total;
    std::unordered_map<std::int64_t, std::int32_t> score_of_count;
    std::vector<Trie::Entry> entries;
    entries.reserve(words.size());
    for (const Word& word : words) {
        if (word.count == 0) continue;  // jieba takes it for a mere prefix
        const auto [place, fresh] = score_of_count.emplace(word.count, static_cast<std::int32_t>(scores_.size()));
        if (fresh) scores_.push_back(std::log(static_cast<double>(word.count)) - log_total);
        entries.push_back({std::u32string_view(pool).substr(word.begin, word.size), place->second});
    }
    trie_ = Trie(entries);
}

std::string JiebaSegmenter::identity() const { return "jieba 0.42.1 HMM=False, own 1, dictionary " + digest_; }

void JiebaSegmenter::segment(std::u32string_view text, std::vector<std::uint8_t>& starts) const {
    starts.assign(text.size(), 1);
    for (std::size_t begin = 0; begin < text.size();) {
        if (!in_block(text[begin])) {
            ++begin;
            continue;
        }
        std::size_t end = begin + 1;
        while (end < text.size() && in_block(text[end])) ++end;
        segment_block(text.substr(begin, end - begin), starts.data() + begin);
        begin = end;
    }
}

/// Dynamic programming from the right: best[i] is the greatest log probability of block[i …]. Of equal sums the longer
/// word wins, as Python's max over (sum, end) has it.
void JiebaSegmenter::segment_block(std::u32string_view block, std::uint8_t* starts) const {
    static thread_local std::vector<double> best;
    static thread_local std::vector<std::uint32_t> length;
    const std::size_t n = block.size();
    best.resize(n + 1);
    length.resize(n + 1);
    best[n] = 0;
    for (std::size_t i = n; i-- > 0;) {
        double top = unknown_ + best[i + 1];
        std::uint32_t top_length = 1;
        bool found = false;
        std::int32_t node = Trie::root;
        for (std::size_t j = i; j < n; ++j) {
            node = trie_.step(node, block[j]);
            if (node == Trie::none) break;
            const std::int32_t value = trie_.value(node);
            if (value == Trie::none) continue;
            const double sum = scores_[static_cast<std::size_t>(value)] + best[j + 1];
            if (found && sum < top) continue;
            top = sum;
            top_length = static_cast<std::uint32_t>(j - i + 1);
            found = true;
        }
        best[i] = top;
        length[i] = top_length;
    }
    bool joins = false;  // the word before was a single letter or digit
    for (std::size_t i = 0; i < n; i += length[i]) {
        const bool single = length[i] == 1 && is_alphanumeric(block[i]);
        starts[i] = !(single && joins);
        std::fill(starts + i + 1, starts + i + length[i], std::uint8_t{0});
        joins = single;
    }
}

void find_word_starts(const Vocabulary& vocabulary, const std::vector<std::int32_t>& ids, const std::vector<TokenSpan>& spans,
                      const std::vector<std::uint8_t>& starts, std::vector<std::uint8_t>& token_starts) {
    token_starts.resize(ids.size());
    std::int64_t from = 0;  // first character after the token before
    for (std::size_t t = 0; t < ids.size(); ++t) {
        std::uint8_t start = 0;
        for (std::int64_t i = from; i <= spans[t].begin; ++i) start |= starts[static_cast<std::size_t>(i)];
        token_starts[t] = t == 0 || (start != 0 && !vocabulary.continues_word(ids[t]));
        from = spans[t].end;
    }
}

}  // namespace rf
