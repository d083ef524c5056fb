#pragma once
/// WordPiece over BERT's words, token for token what bert4keras' Tokenizer gives with do_lower_case (roformer_v2.md 3.2).

#include "text/splitter.hpp"
#include "text/trie.hpp"
#include "text/vocabulary.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

/// Characters of the original text that a token covers.
struct TokenSpan {
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

class Tokenizer {
public:
    /// A longer word is [UNK] (bert4keras Tokenizer, word_maxlen).
    static constexpr std::size_t max_word = 200;

    /// `vocabulary` outlives the tokenizer.
    explicit Tokenizer(const Vocabulary& vocabulary);

    /// Appends the ids of `text`, without [CLS] and [SEP].
    void encode(std::u32string_view text, std::vector<std::int32_t>& ids) const;
    /// Appends for every token also the characters it covers (bytes: `utf8_offsets` of them).
    void encode(std::u32string_view text, std::vector<std::int32_t>& ids, std::vector<TokenSpan>& spans) const;
    /// Of UTF-8; throws Utf8Error.
    std::vector<std::int32_t> encode(std::string_view text) const;

    const Vocabulary& vocabulary() const { return vocabulary_; }
    /// Name and version of the rules, for the corpus.
    static std::string identity();

private:
    template <bool with_spans>
    struct Sink;

    const Vocabulary& vocabulary_;
    Splitter splitter_;
    Trie trie_;
    std::vector<std::uint16_t> singles_;          ///< id by code point
    Trie::Node continuation_{};                   ///< the trie's node of `##`
};

}  // namespace rf
