#pragma once
/// Files of the usual forms to rows. Lines and compression: io/text_input.hpp.
///
/// | format   | a row is |
/// | jsonl    | a line of JSON |
/// | json     | an item of the list that the file is (or with `each`, of lists inside) |
/// | tsv      | a line of columns between tabs, no quotes |
/// | csv      | a record of RFC 4180: commas, quotes doubled, line ends inside quotes |
/// | conll    | a sentence: a character and a tag (BIO, BMES, BIOES) a line, an empty line behind it -> `text`, `entities` [{type, start, end}] |
/// | pattern  | a line that a regular expression takes apart |
/// | blocks   | as many lines as there are columns; columns of no name are skipped |
/// | cmrc2017 | numbered lines up to one of a question: `<id> ||| query` -> `id`, `query`, `document` |

#include "tasks/row.hpp"
#include "tasks/task_file.hpp"

#include <functional>
#include <string>
#include <vector>

namespace rf::tasks {

const std::vector<std::string>& formats();

/// Where a row stands: "file:line", or "file: record n" of a JSON file.
struct RowPlace {
    std::string file;
    std::int64_t line = 0;
    bool is_record = false;
};
std::ostream& operator<<(std::ostream& out, const RowPlace& place);

/// Calls act(row, place) for every row of the files, in order. What is no row of the format, or has no list of `each`, no gap or no partner,
/// is passed to `bad`; so is what `act` throws. Files that cannot be read further (JSON as a whole, tags, UTF-8) are UsageErrors.
using RowAction = std::function<void(const Row&, const RowPlace&)>;
using BadRowAction = std::function<void(const BadRow&, const RowPlace&)>;
void read_rows(const std::vector<std::string>& files, const Reader& reader, const RowAction& act, const BadRowAction& bad);

/// Paths of `files` (a path or a list) below the folder `data`, which none may leave; globs and folders as everywhere.
std::vector<std::string> files_below(const std::string& data, const json::value& files, const json::Place& place);

}  // namespace rf::tasks
