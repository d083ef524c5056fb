#pragma once
/// Answer files as a benchmark asks for them.

#include "tasks/outputs.hpp"
#include "tasks/prepared.hpp"

#include <filesystem>

namespace rf::tasks {

/// Writes the files of `submission` in the task file into a folder, one a source of the test part, its examples in their order; nothing
/// for a task without. Forms, as CLUE has them:
///
///   labels    a line an example: {"id": 0, "label": "108"}. A choice is its number from 0, as text
///   answers   one object: {"TEST_0_QUERY_0": "answer", …}, a key a line
///   choices   one object: {"#idiom000378#": 3, …}; where the choices of a group must differ, those assigned
///   entities  a line an example: {"id": 0, "label": {"name": {"text": [[9, 11]]}}}, characters from first to last
///
/// An id of digits is written as a number. Each file is whole or absent; ids that stand twice and sources without an example are refused
/// before any is written.
void write_submission(const Task& task, const Prepared& test, const Outputs& outputs, const std::filesystem::path& folder);

}  // namespace rf::tasks
