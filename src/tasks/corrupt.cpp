#include "tasks/corrupt.hpp"

#include "core/philox.hpp"

#include <algorithm>
#include <vector>

namespace rf::tasks {

namespace {

/// Draws of one sequence, numbered.
class Draws {
public:
    Draws(std::uint64_t seed, std::uint64_t sample, std::uint32_t row) : key_(philox_key(seed)), sample_(sample), row_(row) {}
    /// Uniform in [0, n) by multiplication; the bias is below n / 2^32.
    std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>((std::uint64_t{bits()} * static_cast<std::uint64_t>(n)) >> 32); }
    double uniform() { return rf::uniform(bits()); }

private:
    std::uint32_t bits() {
        if (used_ == 4) {
            block_ = philox(
                {index_++, static_cast<std::uint32_t>(sample_), static_cast<std::uint32_t>(sample_ >> 32), philox_stream(Purpose::corrupt, row_)},
                key_);
            used_ = 0;
        }
        return block_[static_cast<std::size_t>(used_++)];
    }
    PhiloxKey key_;
    std::uint64_t sample_;
    std::uint32_t row_, index_ = 0;
    PhiloxCounter block_{};
    int used_ = 4;
};

/// `count` distinct numbers below n, rising: each of the sets equally likely (Floyd's method, Bentley & Floyd, CACM 30(9), 1987).
void draw_distinct(std::int64_t n, std::int64_t count, Draws& draws, std::vector<std::int64_t>& out) {
    out.clear();
    for (std::int64_t last = n - count; last < n; ++last) {
        const std::int64_t drawn = draws.below(last + 1);
        const auto at = std::lower_bound(out.begin(), out.end(), drawn);
        if (at != out.end() && *at == drawn) out.push_back(last);  // greater than all before
        else out.insert(at, drawn);
    }
}

}  // namespace

void corrupt(std::span<std::int32_t> ids, std::span<const Range> pieces, const SpecialIds& special, std::int64_t vocab_size, std::uint64_t seed,
             std::uint64_t sample, std::uint32_t row) {
    Draws draws(seed, sample, row);
    std::vector<std::int64_t> places;
    for (const Range& piece : pieces) {
        const std::int64_t k = piece.end - piece.begin;
        const std::int64_t count = k * 15 / 100 / 2 * 2;
        if (count < 2) continue;
        draw_distinct(k, count, draws, places);
        for (std::size_t i = 0; i < places.size(); i += 2) {
            const auto p = static_cast<std::size_t>(piece.begin + places[i]);
            if (draws.uniform() < 0.8) {
                ids[p] = ids[p + 1] = special.mask;
            } else if (draws.uniform() < 0.9) {
                ids[p] = static_cast<std::int32_t>(1 + draws.below(vocab_size - 1));
                ids[p + 1] = static_cast<std::int32_t>(1 + draws.below(vocab_size - 1));
            }
        }
    }
}

}  // namespace rf::tasks
