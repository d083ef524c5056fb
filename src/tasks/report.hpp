#pragma once
/// What a check of task files prints.

#include "tasks/prepared.hpp"

#include <ostream>

namespace rf::tasks {

/// A few lines for each split: rows kept, dropped and why, labels lost, sequences cut short, lengths, labels.
void print_report(const Task& task, const PreparedTask& prepared, std::ostream& out);

}  // namespace rf::tasks
