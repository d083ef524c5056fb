#pragma once
/// Where words begin in Chinese text, for whole-word masking.

#include "text/trie.hpp"

#include <memory>
#include <string>
#include <vector>

namespace rf {

class Segmenter {
public:
    virtual ~Segmenter() = default;
    /// Sets begins[i] for every character of `text` that begins a word; the length becomes that of the text.
    virtual void segment(std::u32string_view text, std::vector<bool>& begins) const = 0;
    /// Name, version and digest of the dictionary, for records.
    virtual std::string description() const = 0;
};

/// "jieba": the most probable path over a dictionary in jieba's format ("word count tag" a line), as jieba 0.42.1's
/// cut(text, HMM=False) finds it. "none": every character is a word. Anything else is a UsageError.
std::unique_ptr<Segmenter> make_segmenter(const std::string& name, const std::string& dictionary);

}  // namespace rf
