#include "tasks/joined.hpp"

namespace rf::tasks {

Joined::Joined(const Join& join) : key_(join.key) {
    if (join.files.is_null()) return;
    any_ = true;
    const Path other(join.other_key.empty() ? join.key : join.other_key);
    std::vector<std::string> files;
    for (const json::value& file : join.files.as_array()) files.emplace_back(file.as_string());
    const auto add = [&](const Row& row, const RowPlace& place) {
        const std::string key = text_of(other.get(row), other.text());
        if (!rows_.emplace(key, std::make_shared<json::value>(row.item())).second) fail_usage(place, ": a second row of the key \"", key, '"');
    };
    Reader reader;
    reader.format = join.format;
    reader.columns = join.columns;
    reader.pattern = join.pattern;
    // A JSON object of answers by name is a list of $key and $value.
    if (other.text() == "$key") reader.each = "*";
    read_rows(files, reader, add, [](const BadRow& e, const RowPlace& place) { fail_usage(place, ": ", e.what()); });
}

Row Joined::find(const Row& row) const {
    if (!any_) return row;
    const std::string key = text_of(key_.get(row), key_.text());
    const auto found = rows_.find(key);
    if (found == rows_.end()) bad_row("the joined file has no row for \"", key, '"');
    return row.joined(found->second);
}

}  // namespace rf::tasks
