#include "text/vocab_builder.hpp"

#include "core/check.hpp"
#include "text/splitter.hpp"

#include <algorithm>
#include <map>

namespace rf {

namespace {

/// Distinct words kept while counting; beyond it the rare ones go, so memory is bounded.
constexpr std::size_t word_limit = 2'000'000;
/// Longer words (identifiers, numbers, addresses) teach no pieces.
constexpr std::size_t longest_word = 32;
/// Share of the vocabulary that single characters may take when there are more of them than fit.
constexpr double character_share = 0.8;

struct CountSink {
    std::unordered_map<char32_t, std::int64_t>& alone_counts;
    std::unordered_map<std::u32string, std::int64_t>& word_counts;
    std::int64_t& seen;
    std::u32string word;
    void letter(char32_t c, std::size_t) { word.push_back(c); }
    void single(char32_t c, std::size_t) {
        ++alone_counts[c];
        ++seen;
    }
    void space() {
        if (word.empty()) return;
        ++seen;
        if (word.size() <= longest_word) ++word_counts[word];
        word.clear();
    }
};

/// A word as pieces, with how often it occurs.
struct Split {
    std::vector<std::u32string> pieces;
    std::int64_t count;
};
using Pair = std::pair<std::u32string, std::u32string>;

std::u32string join(const Pair& pair) { return pair.first + (pair.second.starts_with(U"##") ? pair.second.substr(2) : pair.second); }

std::map<Pair, std::int64_t> count_pairs(const std::vector<Split>& splits, std::map<Pair, std::vector<std::size_t>>& where) {
    std::map<Pair, std::int64_t> counts;
    for (std::size_t w = 0; w < splits.size(); ++w)
        for (std::size_t i = 0; i + 1 < splits[w].pieces.size(); ++i) {
            const Pair pair{splits[w].pieces[i], splits[w].pieces[i + 1]};
            counts[pair] += splits[w].count;
            auto& list = where[pair];
            if (list.empty() || list.back() != w) list.push_back(w);
        }
    return counts;
}

void merge_in(Split& split, const Pair& pair, std::size_t w, std::map<Pair, std::int64_t>& counts, std::map<Pair, std::vector<std::size_t>>& where) {
    auto& p = split.pieces;
    for (std::size_t i = 0; i + 1 < p.size(); ++i) counts[{p[i], p[i + 1]}] -= split.count;
    for (std::size_t i = 0; i + 1 < p.size(); ++i) {
        if (p[i] != pair.first || p[i + 1] != pair.second) continue;
        p[i] = join(pair);
        p.erase(p.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
    for (std::size_t i = 0; i + 1 < p.size(); ++i) {
        counts[{p[i], p[i + 1]}] += split.count;
        where[{p[i], p[i + 1]}].push_back(w);
    }
}

}  // namespace

void VocabBuilder::add(std::string_view text) {
    static const Splitter splitter;
    CountSink sink{alone_, words_, words_seen_, {}};
    splitter.split(decode_utf8(text), sink);
    for (std::int64_t floor = 1; words_.size() > word_limit; ++floor) std::erase_if(words_, [&](const auto& w) { return w.second <= floor; });
}

std::vector<std::string> VocabBuilder::build(std::int64_t size, std::int64_t min_frequency) const {
    std::vector<std::string> vocab{"[PAD]"};
    for (int i = 1; i < 100; ++i) vocab.push_back(message("[unused", i, "]"));
    for (const char* special : {"[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"}) vocab.emplace_back(special);
    RF_REQUIRE(size > static_cast<std::int64_t>(vocab.size()), "a vocabulary of ", size, " leaves no room beside ", vocab.size(), " special tokens");

    std::unordered_map<char32_t, std::int64_t> characters = alone_;
    std::map<std::u32string, std::int64_t> alphabet;  // ## pieces of one character
    std::vector<Split> splits;
    std::map<std::u32string, std::int64_t> words(words_.begin(), words_.end());  // sorted: the order is part of the result
    for (const auto& [word, count] : words) {
        Split split{{}, count};
        for (std::size_t i = 0; i < word.size(); ++i) {
            split.pieces.push_back(i == 0 ? std::u32string(1, word[i]) : U"##" + std::u32string(1, word[i]));
            if (i == 0) characters[word[i]] += count;
            else alphabet[split.pieces.back()] += count;
        }
        if (split.pieces.size() > 1 && count >= min_frequency) splits.push_back(std::move(split));
    }
    const auto by_count = [](const auto& a, const auto& b) { return a.second != b.second ? a.second > b.second : a.first < b.first; };
    std::vector<std::pair<char32_t, std::int64_t>> singles(characters.begin(), characters.end());
    std::vector<std::pair<std::u32string, std::int64_t>> continuing(alphabet.begin(), alphabet.end());
    std::sort(singles.begin(), singles.end(), by_count);
    std::sort(continuing.begin(), continuing.end(), by_count);
    const auto room = [&] { return size - static_cast<std::int64_t>(vocab.size()); };
    const auto most = static_cast<std::int64_t>(static_cast<double>(room()) * character_share);
    for (std::int64_t i = 0; const auto& [c, count] : singles)
        if (count >= min_frequency && i++ < most) vocab.push_back(encode_utf8(std::u32string(1, c)));
    for (std::int64_t i = 0, limit = room() / 2; const auto& [piece, count] : continuing)
        if (count >= min_frequency && i++ < limit) vocab.push_back(encode_utf8(piece));

    std::map<Pair, std::vector<std::size_t>> where;
    std::map<Pair, std::int64_t> counts = count_pairs(splits, where);
    const auto order = [](const auto& a, const auto& b) { return a.second != b.second ? a.second < b.second : a.first > b.first; };
    while (room() > 0 && !counts.empty()) {
        const auto best = std::max_element(counts.begin(), counts.end(), order);
        if (best->second < std::max<std::int64_t>(min_frequency, 2)) break;
        const Pair pair = best->first;
        std::vector<std::size_t> touched = std::move(where[pair]);
        std::sort(touched.begin(), touched.end());
        touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
        for (const std::size_t w : touched) merge_in(splits[w], pair, w, counts, where);
        counts.erase(pair);
        where.erase(pair);
        const std::string token = encode_utf8(join(pair));
        if (std::find(vocab.begin(), vocab.end(), token) == vocab.end()) vocab.push_back(token);
    }
    return vocab;
}

}  // namespace rf
