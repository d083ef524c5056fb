#pragma once
/// The rows of a task with the split that each belongs to.

#include "tasks/examples.hpp"
#include "tasks/readers.hpp"

#include <functional>

namespace rf::tasks {

/// Calls act(row, place, split, source) for every row of the splits wanted, filters applied, rows of train that are held out by `hashed` given to
/// their split. `skipped(split)` is told of what a filter leaves out, `bad` of rows that cannot be read.
struct RowVisitor {
    std::function<void(const Row&, const RowPlace&, Split, std::int32_t source)> act;
    std::function<void(Split)> skipped;
    std::function<void(const BadRow&, const RowPlace&, Split)> bad;
};
void visit_rows(const Task& task, const ExampleMaker& maker, const std::vector<Split>& wanted, const RowVisitor& visitor);

/// XXH3-128 of the letters and digits of a text.
Hash128 text_hash(std::string_view text);

}  // namespace rf::tasks
