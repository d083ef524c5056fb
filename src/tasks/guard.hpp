#pragma once
/// Texts that no training row may hold.

#include "data/seen_set.hpp"
#include "tasks/task_file.hpp"
#include "text/tokenizer.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace rf::tasks {

/// The texts of the dev and test parts of tasks with `guard` (the CLUE tasks), compared by their letters and digits.
class Guard {
public:
    Guard() = default;
    /// Reads these parts, a task a thread.
    Guard(const std::vector<Task>& tasks, const Tokenizer& tokenizer);
    bool holds(std::string_view text) const;
    std::int64_t size() const { return static_cast<std::int64_t>(sorted_.size()); }
    const std::string& digest() const { return digest_; }

private:
    std::vector<Hash128> sorted_;
    std::string digest_;
};

/// All tasks with `guard` among these files and those in the same folders, so that a run of a few tasks is as strict as one of all. Those of
/// them whose data are absent guard nothing: a warning names them.
std::vector<Task> guards_beside(const std::vector<std::string>& files, const std::string& data);

}  // namespace rf::tasks
