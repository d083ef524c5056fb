#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

/// vocab.txt in BERT's format: one token a line, its id the number of the line, `##` in front of pieces that continue a
/// word. Must hold [PAD] (id 0), [UNK], [CLS], [SEP] and [MASK]; at most 65536 entries.
class Vocabulary {
public:
    /// Errors are UsageErrors that name file and line.
    static Vocabulary read(const std::string& path);
    /// `name` stands for the file in messages.
    static Vocabulary parse(std::string_view text, const std::string& name);

    std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
    const std::string& token(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
    const std::vector<std::string>& tokens() const { return tokens_; }
    /// XXH3-128 of the file's bytes.
    const std::string& digest() const { return digest_; }
    std::int32_t unk() const { return unk_; }
    std::int32_t cls() const { return cls_; }
    std::int32_t sep() const { return sep_; }
    std::int32_t mask() const { return mask_; }

private:
    std::vector<std::string> tokens_;
    std::string digest_;
    std::int32_t unk_ = 0, cls_ = 0, sep_ = 0, mask_ = 0;
};

}  // namespace rf
