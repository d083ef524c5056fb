#pragma once
/// A set of strings of code points with a number each, as a double array: one step is one addition and one comparison.
/// Aoe, "An efficient digital search algorithm by using a double-array structure", IEEE TSE 15(9), 1989.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rf {

class Trie {
public:
    static constexpr std::int32_t none = -1;
    static constexpr std::int32_t root = 0;

    struct Entry {
        std::u32string_view key;  ///< not empty, no two alike
        std::int32_t value = 0;   ///< not negative
    };
    Trie() : nodes_(1) {}
    explicit Trie(std::span<const Entry> entries);

    /// The node one character further, or `none`.
    std::int32_t step(std::int32_t node, char32_t c) const {
        if (c >= codes_.size()) return none;
        const std::int32_t code = codes_[c];
        const std::int32_t next = nodes_[static_cast<std::size_t>(node)].base + code;
        return code != 0 && nodes_[static_cast<std::size_t>(next)].parent == node ? next : none;
    }
    /// The number of the string that ends at this node, or `none`.
    std::int32_t value(std::int32_t node) const { return nodes_[static_cast<std::size_t>(node)].value; }
    std::int64_t bytes() const { return static_cast<std::int64_t>(nodes_.size() * sizeof(Node) + codes_.size() * 2); }

private:
    friend class TrieBuilder;
    struct Node {
        std::int32_t base = 0;
        std::int32_t parent = none;
        std::int32_t value = none;
    };
    std::vector<Node> nodes_;
    std::vector<std::uint16_t> codes_;  ///< by code point; frequent characters have small codes; 0: in no string
};

}  // namespace rf
