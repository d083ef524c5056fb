#pragma once
/// Hashes that occurred before, in little more than their own bytes.

#include <algorithm>
#include <compare>
#include <cstdint>
#include <vector>

namespace rf {

struct Hash128 {
    std::uint64_t high = 0, low = 0;
    auto operator<=>(const Hash128&) const = default;
};

/// A set of evenly distributed keys (Hash128 or std::uint64_t) whose greatest number is known before: linear probing that keeps
/// the keys in order, so that the table may be nearly full (Amble & Knuth, "Ordered hash tables", Computer Journal 17(2), 1974).
/// 17/16 of the keys' own size: 17 bytes for a Hash128.
template <class Key>
class SeenSet {
public:
    explicit SeenSet(std::int64_t most) : homes_(static_cast<std::uint64_t>(most + most / 16 + 1)), slots_(homes_ + spill) {}

    bool contains(Key key) const {
        const std::size_t at = find(key = filled(key));
        return at < slots_.size() && slots_[at] == key;
    }
    /// False when the key was there.
    bool insert(Key key) {
        const std::size_t at = find(key = filled(key));
        if (at < slots_.size() && slots_[at] == key) return false;
        std::size_t end = at;
        while (end < slots_.size() && slots_[end] != Key{}) ++end;
        if (end == slots_.size()) slots_.emplace_back();  // the last run is longer than the spill: possible, never seen
        std::move_backward(slots_.begin() + static_cast<std::ptrdiff_t>(at), slots_.begin() + static_cast<std::ptrdiff_t>(end),
                           slots_.begin() + static_cast<std::ptrdiff_t>(end) + 1);
        slots_[at] = key;
        return true;
    }
    std::int64_t bytes() const { return static_cast<std::int64_t>(slots_.size() * sizeof(Key)); }

private:
    static constexpr std::size_t spill = 1024;  ///< slots behind the last home, so that no run wraps around
    static std::uint64_t leading(std::uint64_t key) { return key; }
    static std::uint64_t leading(const Hash128& key) { return key.high; }
    /// An empty slot is all zeros, so the key 0 stands as 1.
    static Key filled(Key key) {
        if (key != Key{}) return key;
        if constexpr (sizeof(Key) == sizeof(std::uint64_t)) return 1;
        else return {0, 1};
    }
    /// Where the key is, or belongs: homes rise with the keys, so every run is sorted.
    std::size_t find(const Key& key) const {
        auto at = static_cast<std::size_t>((static_cast<unsigned __int128>(leading(key)) * homes_) >> 64);
        while (at < slots_.size() && slots_[at] != Key{} && slots_[at] < key) ++at;
        return at;
    }

    std::uint64_t homes_;
    std::vector<Key> slots_;
};

}  // namespace rf
