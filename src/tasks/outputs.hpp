#pragma once
/// What a head says of whole examples, on the host: what answers, metrics and submissions are made from.

#include "tasks/task_file.hpp"

#include <cstdint>
#include <vector>

namespace rf::tasks {

/// A cell that a token-pair head says yes to; tokens counted from the sequence's first.
struct FoundCell {
    std::int32_t type = 0, start = 0, end = 0;
    double score = 0;
    bool operator==(const FoundCell&) const = default;
};

/// Of the cells of one sequence and type the `limit` with the highest scores (of equals the first), in their order: a head that has learnt
/// nothing says yes to half of all cells.
void keep_best(std::vector<FoundCell>& cells, std::size_t limit);

/// Of neighbouring sequences in their order. What a kind does not have is empty.
struct Outputs {
    std::int64_t width = 0;                   ///< classify: classes; regress, multiple_choice, rank: 1
    std::vector<float> logits;                ///< [N, width]
    std::vector<FoundCell> cells;             ///< span: the best cell of each sequence; entities, relations, events: those with a score above 0, of each
                                              ///< sequence and type no more than it has tokens
    std::vector<std::int64_t> cell_begin{0};  ///< [N+1]; span: one a sequence
    std::vector<float> probability;           ///< span [N]: softmax of that cell among the answers of its sequence
    std::vector<std::uint8_t> no_answer;      ///< span [N]: the cell (0, 0), no answer, scores higher than every answer

    std::int64_t sequences() const { return width > 0 ? static_cast<std::int64_t>(logits.size()) / width : static_cast<std::int64_t>(cell_begin.size()) - 1; }
    void append(const Outputs& next);
};

}  // namespace rf::tasks
