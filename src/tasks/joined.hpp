#pragma once
/// Rows of a second file, found by their key.

#include "tasks/readers.hpp"

#include <memory>
#include <string>
#include <unordered_map>

namespace rf::tasks {

class Joined {
public:
    /// Reads the file. A key that stands twice, or a row without one, is a UsageError with file and line.
    explicit Joined(const Join& join);
    /// The row with the fields of its partner, looked up last; the row itself where nothing is joined. BadRow without a partner.
    Row find(const Row& row) const;

private:
    Path key_;
    bool any_ = false;
    std::unordered_map<std::string, std::shared_ptr<const json::value>> rows_;
};

}  // namespace rf::tasks
