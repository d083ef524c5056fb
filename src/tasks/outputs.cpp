#include "tasks/outputs.hpp"

#include <algorithm>
#include <numeric>

namespace rf::tasks {

void keep_best(std::vector<FoundCell>& cells, std::size_t limit) {
    if (cells.size() <= limit) return;
    std::vector<std::size_t> order(cells.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto better = [&](std::size_t a, std::size_t b) { return cells[a].score != cells[b].score ? cells[a].score > cells[b].score : a < b; };
    std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(limit), order.end(), better);
    order.resize(limit);
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < limit; ++i) cells[i] = cells[order[i]];
    cells.resize(limit);
}

void Outputs::append(const Outputs& next) {
    width = next.width;
    logits.insert(logits.end(), next.logits.begin(), next.logits.end());
    for (std::size_t i = 1; i < next.cell_begin.size(); ++i) cell_begin.push_back(next.cell_begin[i] + static_cast<std::int64_t>(cells.size()));
    cells.insert(cells.end(), next.cells.begin(), next.cells.end());
    probability.insert(probability.end(), next.probability.begin(), next.probability.end());
    no_answer.insert(no_answer.end(), next.no_answer.begin(), next.no_answer.end());
}

}  // namespace rf::tasks
