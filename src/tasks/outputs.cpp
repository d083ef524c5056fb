#include "tasks/outputs.hpp"

namespace rf::tasks {

void Outputs::append(const Outputs& next) {
    width = next.width;
    logits.insert(logits.end(), next.logits.begin(), next.logits.end());
    for (std::size_t i = 1; i < next.cell_begin.size(); ++i) cell_begin.push_back(next.cell_begin[i] + static_cast<std::int64_t>(cells.size()));
    cells.insert(cells.end(), next.cells.begin(), next.cells.end());
    probability.insert(probability.end(), next.probability.begin(), next.probability.end());
    no_answer.insert(no_answer.end(), next.no_answer.begin(), next.no_answer.end());
}

}  // namespace rf::tasks
