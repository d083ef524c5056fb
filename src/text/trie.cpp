#include "text/trie.hpp"

#include "core/check.hpp"

#include <algorithm>
#include <utility>

namespace rf {

/// Places the nodes breadth first. Free slots are a doubly linked list in rising order.
class TrieBuilder {
public:
    TrieBuilder(Trie& trie, std::span<const Trie::Entry> entries) : trie_(trie) {
        number_characters(entries);
        sort(entries);
        grow(2 * static_cast<std::size_t>(trie_.alphabet_) + 64);
        take(0);  // the root's, while building
        Range all{0, 0, static_cast<std::uint32_t>(items_.size()), 0};
        std::vector<Range> level{all}, next;
        while (!level.empty()) {
            next.clear();
            for (const Range& range : level) place_children(range, next);
            std::swap(level, next);
        }
        trie_.root_ = std::exchange(trie_.nodes_[0], Trie::nothing);
        // A step may look a whole alphabet and one more beyond any base.
        trie_.nodes_.resize(bases_.size() + static_cast<std::size_t>(trie_.alphabet_) + 2);
    }

private:
    struct Item {
        std::uint64_t head;  ///< first four codes, for a fast sort
        const std::uint16_t* codes;
        std::uint32_t length;
        std::int32_t value;
    };
    /// Strings [begin, end) share their first `depth` codes; `node` stands for these.
    struct Range {
        std::int32_t node;
        std::uint32_t begin, end, depth;
    };
    /// Attempts to fit siblings into gaps before they go to the end of the array: bounds the time of the build.
    static constexpr int max_attempts = 32;
    static constexpr std::int32_t most_values = (1 << 20) - 1, most_slots = 1 << 28;  ///< what a node's fields hold

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
        std::uint16_t* to = codes_.data();
        for (const auto& entry : entries) {
            RF_REQUIRE(!entry.key.empty() && entry.value >= 0 && entry.value < most_values, "an entry needs a key and a number below ", most_values);
            Item item{0, to, static_cast<std::uint32_t>(entry.key.size()), entry.value};
            for (const char32_t c : entry.key) *to++ = trie_.codes_[c];
            for (std::uint32_t i = 0; i < 4; ++i) item.head = item.head << 16 | (i < item.length ? item.codes[i] : 0U);
            items_.push_back(item);
        }
        std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
            if (a.head != b.head) return a.head < b.head;
            return std::lexicographical_compare(a.codes, a.codes + a.length, b.codes, b.codes + b.length);
        });
    }

    void grow(std::size_t size) {
        RF_REQUIRE(size < most_slots, "too many strings in one set");
        const std::size_t old = trie_.nodes_.size() == 1 && next_.empty() ? 0 : trie_.nodes_.size();
        trie_.nodes_.resize(size);
        next_.resize(size);
        previous_.resize(size);
        for (std::size_t i = old; i < size; ++i) {
            previous_[i] = i > old ? static_cast<std::int32_t>(i) - 1 : last_free_;
            next_[i] = i + 1 < size ? static_cast<std::int32_t>(i) + 1 : none;
        }
        if (last_free_ != none) next_[static_cast<std::size_t>(last_free_)] = static_cast<std::int32_t>(old);
        if (first_free_ == none) first_free_ = static_cast<std::int32_t>(old);
        last_free_ = static_cast<std::int32_t>(size) - 1;
    }

    void take(std::int32_t slot) {
        const auto s = static_cast<std::size_t>(slot);
        (previous_[s] == none ? first_free_ : next_[static_cast<std::size_t>(previous_[s])]) = next_[s];
        (next_[s] == none ? last_free_ : previous_[static_cast<std::size_t>(next_[s])]) = previous_[s];
        next_[s] = taken;
        tail_ = std::max(tail_, slot);
    }
    bool is_free(std::int32_t slot) const { return next_[static_cast<std::size_t>(slot)] != taken; }

    /// A base of no other node that puts every child into a free slot.
    std::int32_t find_base(const std::vector<std::int32_t>& children) {
        const std::int32_t low = children.front(), high = children.back();
        int attempts = 0;
        for (std::int32_t slot = start_; slot != none; slot = next_[static_cast<std::size_t>(slot)]) {
            if (slot <= low || is_base(slot - low)) continue;
            const std::int32_t base = slot - low;
            make_room(base + high);
            if (std::all_of(children.begin(), children.end(), [&](std::int32_t c) { return is_free(base + c); })) return base;
            if (++attempts == max_attempts) break;
        }
        // The crowded slots at the front leave the list, or every later search would try them again.
        for (int i = 0; i < max_attempts / 4 && first_free_ != none && first_free_ < tail_; ++i) take(first_free_);
        std::int32_t base = std::max(1, tail_ + 1 - low);
        while (is_base(base)) ++base;
        make_room(base + high);
        return base;
    }
    bool is_base(std::int32_t base) const { return static_cast<std::size_t>(base) < bases_.size() && bases_[static_cast<std::size_t>(base)]; }
    void make_room(std::int32_t slot) {
        while (static_cast<std::size_t>(slot) >= trie_.nodes_.size()) grow(trie_.nodes_.size() * 3 / 2);
    }

    void place_children(const Range& range, std::vector<Range>& next) {
        std::uint32_t begin = range.begin;
        if (items_[begin].length == range.depth) {
            trie_.nodes_[static_cast<std::size_t>(range.node)].value = static_cast<std::uint64_t>(items_[begin].value) + 1;
            ++begin;
            RF_REQUIRE(begin == range.end || items_[begin].length > range.depth, "a string stands twice in the set");
        }
        if (begin == range.end) return;
        children_.clear();
        const std::size_t first = next.size();
        for (std::uint32_t i = begin; i < range.end; ++i) {
            const std::int32_t code = items_[i].codes[range.depth];
            if (children_.empty() || children_.back() != code) {
                children_.push_back(code);
                next.push_back({0, i, i, range.depth + 1});
            }
            next.back().end = i + 1;
        }
        start_ = first_free_;
        const std::int32_t base = find_base(children_);
        trie_.nodes_[static_cast<std::size_t>(range.node)].base = static_cast<std::uint64_t>(base);
        if (static_cast<std::size_t>(base) >= bases_.size()) bases_.resize(static_cast<std::size_t>(base) + 1);
        bases_[static_cast<std::size_t>(base)] = true;
        for (std::size_t i = 0; i < children_.size(); ++i) {
            const std::int32_t slot = base + children_[i];
            take(slot);
            trie_.nodes_[static_cast<std::size_t>(slot)].code = static_cast<std::uint64_t>(children_[i]);
            next[first + i].node = slot;
        }
    }

    static constexpr std::int32_t none = -1, taken = -2;
    Trie& trie_;
    std::int32_t tail_ = 0;  ///< last slot in use
    std::vector<std::uint16_t> codes_;
    std::vector<Item> items_;
    std::vector<std::int32_t> children_, next_, previous_;
    std::vector<bool> bases_;  ///< those in use
    std::int32_t first_free_ = none, last_free_ = none, start_ = none;
};

Trie::Trie(std::span<const Entry> entries) {
    if (entries.empty())
        nodes_.resize(1);
    else
        TrieBuilder(*this, entries);
}

}  // namespace rf
