#include "text/segmenter.hpp"

#include "core/check.hpp"
#include "io/files.hpp"
#include "text/unicode.hpp"

#include <charconv>
#include <cmath>
#include <unordered_map>

namespace rf {

namespace {

class NoSegmenter final : public Segmenter {
public:
    void segment(std::u32string_view text, std::vector<bool>& begins) const override { begins.assign(text.size(), true); }
    std::string description() const override { return "none"; }
};

bool is_latin(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }
/// jieba's re_han_default: characters that the dictionary is asked about.
bool in_block(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FD5) || is_latin(c) || c == '+' || c == '#' || c == '&' || c == '.' || c == '_' || c == '%' || c == '-';
}

class JiebaSegmenter final : public Segmenter {
public:
    explicit JiebaSegmenter(const std::string& path) {
        std::string text;
        try {
            text = read_file(path);
        } catch (const Error& e) {
            fail_usage("segmenter.dictionary: ", e.what(), " (Debian's package python3-jieba has one; or segmenter.name = \"none\")");
        }
        description_ = message("jieba maximum-probability 0.42.1, dictionary ", digest(text.data(), static_cast<std::int64_t>(text.size())));
        read(text, path);
    }

    std::string description() const override { return description_; }

    void segment(std::u32string_view text, std::vector<bool>& begins) const override {
        begins.assign(text.size(), false);
        for (std::size_t i = 0; i < text.size();) {
            if (!in_block(text[i])) {
                begins[i++] = true;  // a character of its own
                continue;
            }
            std::size_t end = i;
            while (end < text.size() && in_block(text[end])) ++end;
            cut(text, i, end, begins);
            i = end;
        }
    }

private:
    void read(const std::string& text, const std::string& path) {
        std::vector<std::u32string> words;
        std::vector<double> counts;
        std::unordered_map<std::u32string, std::size_t> seen;
        double total = 0;
        std::size_t number = 0;
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t end = std::min(text.find('\n', at), text.size());
            const std::string_view line(text.data() + at, end - at);
            at = end + 1;
            ++number;
            const std::size_t blank = line.find(' ');
            std::int64_t count = 0;
            if (blank == std::string_view::npos || blank == 0 ||
                std::from_chars(line.data() + blank + 1, line.data() + line.size(), count).ec != std::errc())
                fail_usage(path, ":", number, ": expected \"word count tag\"");
            total += static_cast<double>(count);
            const auto [place, fresh] = seen.emplace(decode_utf8(line.substr(0, blank)), words.size());
            if (fresh) {
                words.push_back(place->first);
                counts.push_back(static_cast<double>(count));
            } else {
                counts[place->second] = static_cast<double>(count);  // the last one counts, as in jieba
            }
        }
        log_total_ = std::log(total);
        std::vector<Trie::Entry> entries;
        for (std::size_t i = 0; i < words.size(); ++i) {
            entries.push_back({words[i], static_cast<std::int32_t>(i)});
            // A word of count 0 is only a prefix to jieba.
            scores_.push_back(counts[i] > 0 ? std::log(counts[i]) - log_total_ : 1);
        }
        trie_ = Trie(entries);
    }

    /// Best path through text[begin, end), from the right; ties go to the longer word.
    void cut(std::u32string_view text, std::size_t begin, std::size_t end, std::vector<bool>& begins) const {
        thread_local std::vector<double> best;
        thread_local std::vector<std::size_t> next;
        const std::size_t n = end - begin;
        best.assign(n + 1, 0);
        next.assign(n + 1, 0);
        for (std::size_t i = n; i-- > 0;) {
            bool any = false;
            std::int32_t node = Trie::root;
            for (std::size_t j = i; j < n; ++j) {
                node = trie_.step(node, text[begin + j]);
                if (node == Trie::none) break;
                const std::int32_t word = trie_.value(node);
                if (word == Trie::none || scores_[static_cast<std::size_t>(word)] > 0) continue;
                const double score = scores_[static_cast<std::size_t>(word)] + best[j + 1];
                if (!any || score >= best[i]) best[i] = score, next[i] = j + 1;
                any = true;
            }
            if (!any) best[i] = 0 - log_total_ + best[i + 1], next[i] = i + 1;
        }
        // Latin letters and digits that stand alone on the path join into one word.
        bool joining = false;
        for (std::size_t i = 0; i < n; i = next[i]) {
            const bool single = next[i] == i + 1 && is_latin(text[begin + i]);
            begins[begin + i] = !(single && joining);
            joining = single;
        }
    }

    Trie trie_;
    std::vector<double> scores_;  ///< log probability; positive: not a word
    double log_total_ = 0;
    std::string description_;
};

}  // namespace

std::unique_ptr<Segmenter> make_segmenter(const std::string& name, const std::string& dictionary) {
    if (name == "none") return std::make_unique<NoSegmenter>();
    if (name == "jieba") return std::make_unique<JiebaSegmenter>(dictionary);
    fail_usage("segmenter.name: expected \"jieba\" or \"none\", found \"", name, "\"");
}

}  // namespace rf
