#pragma once
/// The tokens a model knows: `vocab.txt` as BERT has it, one token a line, its id the number of the line from 0.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rf {

class Vocabulary {
public:
    /// Ids are stored in 16 bits.
    static constexpr std::int64_t max_size = 65536;

    /// Reads a file. Errors are UsageErrors that name file and line.
    explicit Vocabulary(const std::string& path);
    /// From the file's bytes; `name` stands for the file in messages.
    Vocabulary(std::string_view content, const std::string& name);

    std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
    const std::string& token(std::int64_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
    const std::vector<std::string>& tokens() const { return tokens_; }
    /// -1 when there is no such token.
    std::int32_t find(std::string_view token) const;
    /// A token that goes on a word: it starts with `##`.
    bool continues_word(std::int64_t id) const { return continues_[static_cast<std::size_t>(id)] != 0; }
    /// XXH3-128 of the file's bytes.
    const std::string& digest() const { return digest_; }

    std::int32_t pad() const { return pad_; }
    std::int32_t unknown() const { return unknown_; }
    std::int32_t cls() const { return cls_; }
    std::int32_t sep() const { return sep_; }
    std::int32_t mask() const { return mask_; }

private:
    void parse(std::string_view content, const std::string& name);
    std::int32_t special(std::string_view token, const std::string& name) const;

    std::vector<std::string> tokens_;
    std::vector<std::uint8_t> continues_;
    std::unordered_map<std::string_view, std::int32_t> ids_;  ///< views of what `content_` holds
    std::string content_;
    std::string digest_;
    std::int32_t pad_ = 0, unknown_ = 0, cls_ = 0, sep_ = 0, mask_ = 0;

public:
    // The map's views point into this object's own text: it stays where it is.
    Vocabulary(const Vocabulary&) = delete;
    Vocabulary& operator=(const Vocabulary&) = delete;
};

}  // namespace rf
