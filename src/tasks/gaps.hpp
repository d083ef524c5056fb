#pragma once
/// The gaps of a text, a row each.

#include "tasks/row.hpp"
#include "tasks/task_file.hpp"

#include <boost/regex.hpp>

#include <string>
#include <vector>

namespace rf::tasks {

/// A UsageError where the text is no regular expression.
boost::regex compile_pattern(const std::string& pattern);

class Gaps {
public:
    /// `blanks` outlives it.
    explicit Gaps(const Blanks& blanks);
    /// The row itself where no gaps are asked for; BadRow where the text has none.
    std::vector<Row> rows(const Row& row) const;

private:
    std::string others(const std::string& text) const;
    void trim(std::u32string& left, std::u32string& right) const;

    const Blanks& options_;
    Path text_;
    boost::regex mark_;
};

}  // namespace rf::tasks
