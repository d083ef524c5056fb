#include "text/segmenter.hpp"

#include "io/files.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
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

constexpr char32_t last_in_block = 0x9FD5;

/// jieba 0.42.1, re_han_default: what stands in a block.
bool in_block(char32_t c) {
    if (c >= 0x4E00) return c <= last_in_block;
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

/// Characters that are worked on at once; more only up to the end of a block.
constexpr std::size_t stretch = 256;
/// Less than any sum of scores, and what it becomes when such a sum is added.
constexpr double no_word = std::numeric_limits<double>::lowest();

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
    pool.reserve(content.size());  // entries look into it
    std::vector<Trie::Entry> entries;
    std::vector<std::int64_t> counts;  // different ones
    std::unordered_map<std::int64_t, std::int32_t> number_of_count;
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
        total += count;  // of a word given twice, the last count stands and both are in the total
        std::int32_t number = Trie::no_value;  // jieba takes a word of count 0 for a mere prefix
        if (count > 0) {
            const auto [place, fresh] = number_of_count.emplace(count, static_cast<std::int32_t>(counts.size()));
            if (fresh) counts.push_back(count);
            number = place->second;
        }
        entries.push_back({std::u32string_view(pool.data() + pool.size(), characters.size()), number});
        pool += characters;
    }
    if (total == 0) fail_usage(name, ": the dictionary is empty");

    const double log_total = std::log(static_cast<double>(total));
    unknown_ = std::log(1.0) - log_total;
    scores_ = {-std::numeric_limits<double>::infinity()};
    for (const std::int64_t count : counts) scores_.push_back(std::log(static_cast<double>(count)) - log_total);
    trie_ = Trie(entries);
    const auto other = static_cast<std::uint16_t>(trie_.alphabet() + 1);
    singles_.assign(other + 1U, no_word);
    symbols_.assign(last_in_block + 1, 0);
    for (char32_t c = 0; c <= last_in_block; ++c)
        if (in_block(c)) symbols_[c] = trie_.code(c) != 0 ? trie_.code(c) : other;
    for (std::uint16_t code = 1; code < other; ++code)
        if (const Trie::Node node = trie_.next(trie_.root(), code); node.value != 0) singles_[code] = scores_[node.value];
}

std::string JiebaSegmenter::identity() const { return "jieba 0.42.1 HMM=False, own 1, dictionary " + digest_; }

/// Of one stretch of text, by character.
struct JiebaSegmenter::Scratch {
    std::vector<std::uint16_t> symbols;
    std::vector<std::uint32_t> slots, lengths;
    std::vector<Trie::Node> twos;
    std::vector<double> best;
    void resize(std::size_t n) {
        if (n <= twos.size()) return;
        symbols.resize(n + 2);
        slots.resize(n);
        lengths.resize(n);
        twos.resize(n);
        best.resize(n + 3);
    }
};

void JiebaSegmenter::segment(std::u32string_view text, std::vector<std::uint8_t>& starts) const {
    thread_local Scratch scratch;
    starts.assign(text.size(), 0);
    for (std::size_t begin = 0; begin < text.size();) {
        std::size_t end = std::min(text.size(), begin + stretch);
        while (end < text.size() && symbol(text[end]) != 0) ++end;
        segment_blocks(text.substr(begin, end - begin), scratch, starts.data() + begin);
        begin = end;
    }
}

/// Dynamic programming from the right: best[i] is the greatest log probability of text[i …] to the end of its block. Of equal
/// sums the longer word wins, as Python's max over (sum, end) has it. The dictionary is asked for words of two and three characters
/// before, everywhere at once: it is larger than the caches, so what counts is that the waits for memory overlap.
void JiebaSegmenter::segment_blocks(std::u32string_view text, Scratch& s, std::uint8_t* starts) const {
    const std::size_t n = text.size();
    s.resize(n);
    for (std::size_t i = 0; i < n; ++i) s.symbols[i] = symbol(text[i]);
    s.symbols[n] = s.symbols[n + 1] = 0;
    for (std::size_t i = 0; i < n; ++i) {
        s.slots[i] = trie_.slot(trie_.next(trie_.root(), s.symbols[i]), s.symbols[i + 1]);
        trie_.prefetch(s.slots[i]);
    }
    for (std::size_t i = 0; i < n; ++i) {
        s.twos[i] = trie_.at(s.slots[i], s.symbols[i + 1]);
        s.slots[i] = trie_.slot(s.twos[i], s.symbols[i + 2]);
        trie_.prefetch(s.slots[i]);
    }
    s.best[n] = s.best[n + 1] = s.best[n + 2] = 0;
    for (std::size_t i = n; i-- > 0;) {
        double top = singles_[s.symbols[i]] + s.best[i + 1];
        std::uint32_t length = 1, characters = 2;
        const auto weigh = [&](Trie::Node node) {
            const double sum = scores_[node.value] + s.best[i + characters];
            length = sum >= top ? characters : length;
            top = std::max(top, sum);
        };
        weigh(s.twos[i]);
        Trie::Node node = trie_.at(s.slots[i], s.symbols[i + 2]);
        ++characters;
        weigh(node);
        while (node.base != 0) {
            node = trie_.next(node, s.symbols[i + characters]);
            ++characters;
            if (node.value != 0) weigh(node);
        }
        if (top == no_word) top = s.symbols[i] != 0 ? unknown_ + s.best[i + 1] : 0;
        s.best[i] = top;
        s.lengths[i] = length;
    }
    bool joins = false;  // the word before was a single letter or digit
    for (std::size_t i = 0; i < n; i += s.lengths[i]) {
        const bool single = s.lengths[i] == 1 && is_alphanumeric(text[i]);
        starts[i] = !(single && joins);
        joins = single;
    }
}

void find_word_starts(const Vocabulary& vocabulary, const std::vector<std::int32_t>& ids, const std::vector<TokenSpan>& spans,
                      std::span<const std::uint8_t> starts, std::vector<std::uint8_t>& token_starts) {
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
