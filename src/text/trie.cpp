#include "text/trie.hpp"

#include "core/check.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace rf {

/// Places the nodes breadth first.
class TrieBuilder {
public:
    TrieBuilder(Trie& trie, std::span<const Trie::Entry> entries) : trie_(trie) {
        number_characters(entries);
        sort(entries);
        make_room(0);
        set_bit(bases_, 0);  // of leaves
        set_bit(slots_, 0);  // the root's while building, then `nothing`
        Range all{0, 0, static_cast<std::uint32_t>(items_.size()), 0};
        std::vector<Range> level{all}, next;
        while (!level.empty()) {
            next.clear();
            for (const Range& range : level) place_children(range, next);
            std::swap(level, next);
        }
        trie_.root_ = std::exchange(trie_.nodes_[0], Trie::nothing);
        // A step may look a whole alphabet and one more beyond any base.
        trie_.nodes_.resize(last_base_ + static_cast<std::size_t>(trie_.alphabet_) + 2);
        trie_.nodes_.shrink_to_fit();
    }

private:
    struct Item {
        std::uint64_t head;          ///< first four codes, for a fast sort
        const std::uint16_t* codes;  ///< in the order of the entries
        std::uint32_t length;
        std::int32_t value;
    };
    /// Strings [begin, end) share their first `depth` codes; `node` stands for these.
    struct Range {
        std::size_t node;
        std::uint32_t begin, end, depth;
    };
    static constexpr std::size_t longest_search = 64;  ///< words of 64 bases; four times as many take three times as long and make no step faster
    static constexpr std::size_t most_slots = 1 << 28;  ///< what a node's fields hold
    static constexpr std::int32_t most_values = (1 << 20) - 1;

    void number_characters(std::span<const Trie::Entry> entries) {
        char32_t top = 0;
        for (const auto& entry : entries)
            for (const char32_t c : entry.key) top = std::max(top, c);
        std::vector<std::uint32_t> count(top + 1);
        for (const auto& entry : entries)
            for (const char32_t c : entry.key) ++count[c];
        std::vector<char32_t> seen;
        for (char32_t c = 0; c <= top; ++c)
            if (count[c] > 0) seen.push_back(c);
        RF_REQUIRE(seen.size() < 65535, "too many different characters in one set of strings");
        std::stable_sort(seen.begin(), seen.end(), [&](char32_t a, char32_t b) { return count[a] > count[b]; });
        trie_.codes_.assign(top + 1, 0);
        for (std::size_t i = 0; i < seen.size(); ++i) trie_.codes_[seen[i]] = static_cast<std::uint16_t>(i + 1);
        trie_.alphabet_ = static_cast<std::int32_t>(seen.size());
    }

    void sort(std::span<const Trie::Entry> entries) {
        std::size_t total = 0;
        for (const auto& entry : entries) total += entry.key.size();
        codes_.resize(total);
        items_.reserve(entries.size());
        std::uint16_t* to = codes_.data();
        for (const auto& entry : entries) {
            RF_REQUIRE(!entry.key.empty() && entry.value >= Trie::no_value && entry.value < most_values,
                       "an entry needs a key and a number below ", most_values);
            Item item{0, to, static_cast<std::uint32_t>(entry.key.size()), entry.value};
            for (const char32_t c : entry.key) *to++ = trie_.codes_[c];
            for (std::uint32_t i = 0; i < 4; ++i) item.head = item.head << 16 | (i < item.length ? item.codes[i] : 0U);
            items_.push_back(item);
        }
        std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
            if (a.head != b.head) return a.head < b.head;
            const auto order = std::lexicographical_compare_three_way(a.codes, a.codes + a.length, b.codes, b.codes + b.length);
            return order != 0 ? order < 0 : a.codes > b.codes;
        });
        const auto alike = [](const Item& a, const Item& b) { return std::equal(a.codes, a.codes + a.length, b.codes, b.codes + b.length); };
        items_.erase(std::unique(items_.begin(), items_.end(), alike), items_.end());
    }

    /// Bits 0 to 63 from any bit on.
    static std::uint64_t bits_from(const std::vector<std::uint64_t>& words, std::size_t bit) {
        const std::size_t shift = bit % 64;
        return shift == 0 ? words[bit / 64] : words[bit / 64] >> shift | words[bit / 64 + 1] << (64 - shift);
    }
    static void set_bit(std::vector<std::uint64_t>& words, std::size_t bit) { words[bit / 64] |= std::uint64_t{1} << (bit % 64); }

    /// The first base of no other node that puts every child into a free slot; 64 are tried at once. Where families of like size have
    /// searched long the next one does not search again: bounds the time of the build.
    std::size_t find_base() {
        std::size_t& start = starts_[static_cast<std::size_t>(std::bit_width(children_.size()))];
        for (std::size_t word = start;; ++word) {
            make_room(64 * word + children_.back());
            std::uint64_t open = ~bases_[word];
            for (std::size_t i = 0; i < children_.size() && open != 0; ++i) open &= ~bits_from(slots_, 64 * word + children_[i]);
            if (open == 0) continue;
            if (word - start > longest_search) start = word;
            return 64 * word + static_cast<std::size_t>(std::countr_zero(open));
        }
    }
    /// For 64 slots from this one.
    void make_room(std::size_t slot) {
        const std::size_t words = slot / 64 + 2;
        if (words <= slots_.size()) return;
        RF_REQUIRE(64 * words < most_slots, "too many strings in one set");
        slots_.resize(words);
        bases_.resize(words);
        trie_.nodes_.resize(64 * words);
    }

    void place_children(const Range& range, std::vector<Range>& next) {
        std::uint32_t begin = range.begin;
        if (items_[begin].length == range.depth) {
            trie_.nodes_[range.node].value = static_cast<std::uint64_t>(items_[begin].value + 1);
            ++begin;
        }
        if (begin == range.end) return;
        children_.clear();
        const std::size_t first = next.size();
        for (std::uint32_t i = begin; i < range.end; ++i) {
            const std::uint16_t code = items_[i].codes[range.depth];
            if (children_.empty() || children_.back() != code) {
                children_.push_back(code);
                next.push_back({0, i, i, range.depth + 1});
            }
            next.back().end = i + 1;
        }
        const std::size_t base = find_base();
        last_base_ = std::max(last_base_, base);
        trie_.nodes_[range.node].base = base;
        set_bit(bases_, base);
        for (std::size_t i = 0; i < children_.size(); ++i) {
            const std::size_t slot = base + children_[i];
            set_bit(slots_, slot);
            trie_.nodes_[slot].code = children_[i];
            next[first + i].node = slot;
        }
    }

    Trie& trie_;
    std::vector<std::uint16_t> codes_;
    std::vector<Item> items_;
    std::vector<std::uint16_t> children_;         ///< codes, rising
    std::vector<std::uint64_t> slots_, bases_;    ///< a bit each: in use
    std::array<std::size_t, 17> starts_{};        ///< by the bits of the number of children: the word where a search begins
    std::size_t last_base_ = 0;
};

Trie::Trie(std::span<const Entry> entries) {
    if (entries.empty())
        nodes_.resize(1);
    else
        TrieBuilder(*this, entries);
}

}  // namespace rf
