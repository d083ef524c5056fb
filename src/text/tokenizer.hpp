#pragma once

#include "text/splitter.hpp"
#include "text/trie.hpp"
#include "text/vocabulary.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace rf {

/// Where a token came from, in characters of the original text.
struct TokenOriginSpan {
    std::int32_t begin = 0;       ///< of its first character
    bool continues = false;       ///< a `##` piece
};

/// BERT's tokenization as bert4keras does it with do_lower_case: split (splitter.hpp), then each word into the longest
/// pieces the vocabulary has, from the left; a word that cannot be pieced together, or of more than 200 characters, is
/// one [UNK]. Special tokens written in the text are not recognised. Thread-safe.
class Tokenizer {
public:
    explicit Tokenizer(const Vocabulary& vocab);

    /// Appends the ids of `text` (UTF-8; Utf8Error otherwise), without [CLS] and [SEP].
    void tokenize(std::string_view text, std::vector<std::int32_t>& ids) const;
    /// The same for decoded text, with the origin of every token when `origins` is given.
    void tokenize(std::u32string_view text, std::vector<std::int32_t>& ids, std::vector<TokenOriginSpan>* origins) const;

    /// Name and versions, for records.
    static std::string description();

private:
    class WordSink;
    Splitter splitter_;
    Trie first_;      ///< pieces that begin a word
    Trie further_;    ///< pieces that continue one, without their ##
    std::int32_t unk_;
};

}  // namespace rf
