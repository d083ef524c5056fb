#pragma once
/// Random corruption of supervised inputs (RoFormerV2's multi-task snippets, `masked_encode`): every piece by itself. Of its k inner
/// tokens M = 2 * floor(floor(0.15 k) / 2) distinct places are drawn; from every second one, p in rising order, p and p + 1 become
/// [MASK] with probability 0.8, random ids in 1 … V-1 with probability 0.2 * 0.9, and stay as they are otherwise.

#include "data/masking.hpp"
#include "tasks/prepared.hpp"

#include <cstdint>
#include <span>

namespace rf::tasks {

/// A pure function of (seed, sample, row): `sample` numbers the draw of an example, `row` its sequence in it.
void corrupt(std::span<std::int32_t> ids, std::span<const Range> pieces, const SpecialIds& special, std::int64_t vocab_size, std::uint64_t seed,
             std::uint64_t sample, std::uint32_t row);

}  // namespace rf::tasks
