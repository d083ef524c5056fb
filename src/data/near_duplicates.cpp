#include "data/near_duplicates.hpp"

#include "text/unicode.hpp"

#include <algorithm>
#include <limits>
#include <string>

namespace rf {

namespace {

/// The finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a bijection that spreads every bit.
std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}
constexpr std::uint64_t golden = 0x9E3779B97F4A7C15U;
std::uint64_t join(std::uint64_t hash, std::uint64_t next) { return mix((hash ^ next) + golden); }

}  // namespace

std::vector<std::uint64_t> band_keys(std::u32string_view text, const NearDuplicateInput& in) {
    std::u32string letters;
    letters.reserve(text.size());
    std::copy_if(text.begin(), text.end(), std::back_inserter(letters), [](char32_t c) { return !unicode::is_space(c); });

    // Every n-gram goes to one bin, which keeps the least; a text shorter than n-grams is one n-gram.
    const auto bins = static_cast<std::uint64_t>(in.bands * in.rows);
    constexpr auto empty = std::numeric_limits<std::uint64_t>::max();
    std::vector<std::uint64_t> least(bins, empty);
    const auto n = std::min(letters.size(), static_cast<std::size_t>(in.characters));
    for (std::size_t i = 0; i + n <= letters.size(); ++i) {
        std::uint64_t hash = 0;
        for (std::size_t j = 0; j < n; ++j) hash = join(hash, letters[i + j]);
        std::uint64_t& bin = least[static_cast<std::size_t>(((hash >> 32) * bins) >> 32)];
        bin = std::min(bin, mix(hash) >> 1);  // >> 1: never `empty`
        if (n == 0) break;
    }
    // An empty bin borrows from one drawn by its number, the same for every text.
    std::vector<std::uint64_t> filled = least;
    for (std::uint64_t b = 0; b < bins; ++b)
        for (std::uint64_t turn = 0; filled[b] == empty; ++turn) filled[b] = least[join(b, turn) % bins];

    std::vector<std::uint64_t> keys;
    for (std::int64_t band = 0; band < in.bands; ++band) {
        auto key = static_cast<std::uint64_t>(band);
        for (std::int64_t row = 0; row < in.rows; ++row) key = join(key, filled[static_cast<std::size_t>(band * in.rows + row)]);
        keys.push_back(key);
    }
    return keys;
}

}  // namespace rf
