#pragma once
/// Who takes what, when no two may take the same.

#include <cstdint>
#include <span>
#include <vector>

namespace rf::tasks {

/// For each row of scores [rows, choices] the choice it takes, so that the sum of the scores taken is greatest and every choice is taken at
/// most once; where there are more rows than choices, at most ceil(rows / choices) times. Exact to 2^-40 of the spread of the scores, and
/// deterministic: a minimum-cost flow of Boost.Graph in whole numbers.
std::vector<std::int64_t> assign(std::span<const float> scores, std::int64_t choices);

}  // namespace rf::tasks
