#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rf {

/// Counts words of text and makes a vocabulary in BERT's format from them: the special tokens at the released ids
/// ([PAD] 0, [unused1..99], [UNK] 100, [CLS] 101, [SEP] 102, [MASK] 103, <S> 104, <T> 105), single characters by
/// frequency (ties by code point), then pieces of longer words by merging the most frequent pair of neighbouring pieces
/// (Sennrich et al. 2016; the pieces that continue a word carry ##). Deterministic.
class VocabBuilder {
public:
    void add(std::string_view text);
    std::int64_t words_seen() const { return words_seen_; }
    /// At most `size` tokens; what occurs less than `min_frequency` times is left out.
    std::vector<std::string> build(std::int64_t size, std::int64_t min_frequency) const;

private:
    std::unordered_map<char32_t, std::int64_t> alone_;           ///< punctuation and Chinese characters
    std::unordered_map<std::u32string, std::int64_t> words_;     ///< the rest
    std::int64_t words_seen_ = 0;
};

}  // namespace rf
