#pragma once
/// A set of strings of code points with a number each, as a double array: one step is one addition, one look-up of eight bytes and one
/// comparison.
/// Aoe, "An efficient digital search algorithm by using a double-array structure", IEEE TSE 15(9), 1989.

#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace rf {

class Trie {
public:
    struct Entry {
        std::u32string_view key;  ///< not empty; of two alike the later one counts
        std::int32_t value = 0;   ///< not negative, below 2^20 - 1; or no_value, as though the string were not there
    };
    /// Where a string has led to. Inner nodes differ in base, so a child is known by its code; leaves share base 0, where no child lies.
    struct Node {
        std::uint64_t base : 28;   ///< its children stand at base + code
        std::uint64_t code : 16;   ///< of the character that led here
        std::uint64_t value : 20;  ///< of the string that ends here, plus one; 0: none does
        bool operator==(const Node&) const = default;
    };
    static constexpr std::int32_t no_value = -1;
    static constexpr Node nothing{};  ///< no string of the set begins like this

    Trie() : nodes_(1) {}
    explicit Trie(std::span<const Entry> entries);

    Node root() const { return root_; }
    /// Number of a character: 1 to `alphabet()`, or 0 when it is in no string.
    std::uint16_t code(char32_t c) const { return c < codes_.size() ? codes_[c] : std::uint16_t{0}; }
    std::int32_t alphabet() const { return alphabet_; }
    /// One character further, or `nothing`. `code` may also be alphabet() + 1, which leads nowhere.
    Node next(Node node, std::uint16_t code) const { return at(slot(node, code), code); }
    /// A step in two halves, for many of them at once: where the next node is kept, for which `prefetch` asks the memory, and the node.
    std::uint32_t slot(Node node, std::uint16_t code) const { return node.base != 0 ? static_cast<std::uint32_t>(node.base) + code : 0; }
    void prefetch(std::uint32_t slot) const { __builtin_prefetch(nodes_.data() + slot); }
    Node at(std::uint32_t slot, std::uint16_t code) const {
        const Node node = nodes_[slot];
        // No branch, for which way it went could not be foretold.
        return std::bit_cast<Node>(std::bit_cast<std::uint64_t>(node) & (node.code == code ? ~std::uint64_t{0} : 0));
    }
    std::int64_t bytes() const { return static_cast<std::int64_t>(nodes_.size() * sizeof(Node) + codes_.size() * 2); }

private:
    friend class TrieBuilder;
    Node root_{};
    std::vector<Node> nodes_;           ///< free ones are `nothing`, slot 0 is
    std::vector<std::uint16_t> codes_;  ///< by code point; frequent characters have small codes
    std::int32_t alphabet_ = 0;
};

}  // namespace rf
