#include "text/tokenizer.hpp"

#include <algorithm>
#include <array>

namespace rf {

Tokenizer::Tokenizer(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    std::vector<std::u32string> keys;
    keys.reserve(static_cast<std::size_t>(vocabulary.size()));
    for (const std::string& token : vocabulary.tokens()) keys.push_back(decode_utf8(token));
    std::vector<Trie::Entry> entries;
    for (std::size_t id = 0; id < keys.size(); ++id) {
        entries.push_back({keys[id], static_cast<std::int32_t>(id)});
        if (keys[id].size() != 1) continue;
        const char32_t c = keys[id].front();
        if (c >= singles_.size()) singles_.resize(c + 1, static_cast<std::uint16_t>(vocabulary.unknown()));
        singles_[c] = static_cast<std::uint16_t>(id);
    }
    trie_ = Trie(entries);
    continuation_ = trie_.next(trie_.next(trie_.root(), trie_.code('#')), trie_.code('#'));
}

/// Gathers a word's letters and cuts it greedily into the longest pieces the vocabulary has.
template <bool with_spans>
struct Tokenizer::Sink {
    const Tokenizer& t;
    std::vector<std::int32_t>& ids;
    std::vector<TokenSpan>* spans;
    std::size_t size = 0;  ///< letters of the word so far; only the first max_word are kept
    std::size_t last = 0;
    std::array<char32_t, max_word> word;
    std::array<std::size_t, with_spans ? max_word : 1> at;

    void put(std::int32_t id, std::size_t begin, std::size_t end) {
        ids.push_back(id);
        if constexpr (with_spans) spans->push_back({static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)});
    }
    void letter(char32_t c, std::size_t from) {
        if (size < max_word) {
            word[size] = c;
            if constexpr (with_spans) at[size] = from;
        }
        last = from;
        ++size;
    }
    void single(char32_t c, std::size_t from) {
        if (size != 0) end_word();
        put(c < t.singles_.size() ? t.singles_[c] : t.vocabulary_.unknown(), from, from + 1);
    }
    void space() {
        if (size != 0) end_word();
    }

    void end_word() {
        const std::size_t before = ids.size();
        std::size_t begin = size > max_word ? size : 0;
        while (begin < size) {
            Trie::Node node = begin == 0 ? t.trie_.root() : t.continuation_;
            std::int32_t id = -1;
            std::size_t end = begin;
            for (std::size_t i = begin; i < size && node.base != 0; ++i) {
                node = t.trie_.next(node, t.trie_.code(word[i]));
                if (node.value == 0) continue;
                id = static_cast<std::int32_t>(node.value) - 1;
                end = i + 1;
            }
            if (id < 0) break;
            if constexpr (with_spans)
                put(id, at[begin], at[end - 1] + 1);
            else
                put(id, 0, 0);
            begin = end;
        }
        if (begin < size || size > max_word) {  // a rest without a piece: the whole word is unknown
            ids.resize(before);
            if constexpr (with_spans) {
                spans->resize(before);
                put(t.vocabulary_.unknown(), at[0], last + 1);
            } else {
                put(t.vocabulary_.unknown(), 0, 0);
            }
        }
        size = 0;
    }
};

void Tokenizer::encode(std::u32string_view text, std::vector<std::int32_t>& ids) const {
    Sink<false> sink{*this, ids, nullptr};
    splitter_.split(text, sink);
}

void Tokenizer::encode(std::u32string_view text, std::vector<std::int32_t>& ids, std::vector<TokenSpan>& spans) const {
    RF_REQUIRE(ids.size() == spans.size(), "ids and spans are filled together");
    Sink<true> sink{*this, ids, &spans};
    splitter_.split(text, sink);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
    std::vector<std::int32_t> ids;
    encode(decode_utf8(text), ids);
    return ids;
}

std::string Tokenizer::identity() { return message("bert wordpiece 1, lower case, NFD, Unicode ", unicode::version()); }

}  // namespace rf
