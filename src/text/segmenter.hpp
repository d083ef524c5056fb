#pragma once
/// Word boundaries for whole-word masking: where words begin in the original text.

#include "text/trie.hpp"
#include "text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

class Segmenter {
public:
    virtual ~Segmenter() = default;
    /// Sets starts[i] = 1 where a word begins, 0 elsewhere: [characters].
    virtual void segment(std::u32string_view text, std::vector<std::uint8_t>& starts) const = 0;
    /// Name, version and dictionary digest, for the corpus.
    virtual std::string identity() const = 0;
};

/// Where Debian's package python3-jieba puts its dictionary.
inline constexpr const char* default_dictionary = "/usr/lib/python3/dist-packages/jieba/dict.txt";

/// `jieba` (maximum-probability path over `dictionary`), `none` (every character: each token is a word, with its ##
/// pieces) or `given` (boundaries come with the text). Errors are UsageErrors.
std::unique_ptr<Segmenter> make_segmenter(const std::string& name, const std::string& dictionary);

/// jieba.cut(text, HMM=False): blocks of Chinese, Latin and some signs are cut along the path of greatest probability;
/// single Latin letters and digits that follow each other make one word; everything else is a word of one character.
class JiebaSegmenter final : public Segmenter {
public:
    explicit JiebaSegmenter(const std::string& dictionary);
    /// From the dictionary's bytes: lines "word count [tag]"; `name` stands for the file in messages.
    JiebaSegmenter(std::string_view content, const std::string& name);

    void segment(std::u32string_view text, std::vector<std::uint8_t>& starts) const override;
    std::string identity() const override;

private:
    struct Scratch;
    void segment_blocks(std::u32string_view text, Scratch& s, std::uint8_t* starts) const;
    std::uint16_t symbol(char32_t c) const { return c < symbols_.size() ? symbols_[c] : std::uint16_t{0}; }

    Trie trie_;                           ///< its values are indices into scores_
    std::vector<std::uint16_t> symbols_;  ///< by code point: its code in the trie, alphabet() + 1 when it is in no word, 0 outside of blocks
    std::vector<double> singles_;         ///< by symbol: the score of the word of this one character
    std::vector<double> scores_;          ///< log(count) - log(total), by different count, behind that of no word
    double unknown_ = 0;                  ///< of a character without a word: log(1) - log(total)
    std::string digest_;
};

/// Which tokens begin a word. A token does when a word of the segmenter begins at its first character or at one skipped
/// since the token before it (white space, controls); a `##` piece never does, nor does a second token of one
/// character. So a boundary stands where tokenizer and segmenter both have one: `iphone13`, cut by the segmenter, stays
/// whole if it is one token; Chinese characters inside a word of the segmenter are one word.
void find_word_starts(const Vocabulary& vocabulary, const std::vector<std::int32_t>& ids, const std::vector<TokenSpan>& spans,
                      std::span<const std::uint8_t> starts, std::vector<std::uint8_t>& token_starts);

}  // namespace rf
