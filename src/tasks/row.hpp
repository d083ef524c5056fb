#pragma once
/// One row of a data file, and the two small languages that name its parts: paths and templates (task_file.hpp).

#include "core/check.hpp"
#include "io/json.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace rf::tasks {

/// A row that cannot become an example. What is wrong with it; the caller adds file and line.
class BadRow : public Error {
    using Error::Error;
};
template <class... Parts>
[[noreturn]] void bad_row(const Parts&... parts) {
    throw BadRow(message(parts...));
}

/// A record, or an item of a list in it with all that holds it. Copies share the record.
class Row {
public:
    Row() = default;
    Row(std::shared_ptr<const json::value> record, std::int64_t line) : line_(line) { chain_.push_back(std::move(record)); }

    /// The item of a row inside a row: names not found in it are looked up here.
    Row inner(std::shared_ptr<const json::value> item) const;
    /// The same with `fields` as the outermost place to look.
    Row joined(std::shared_ptr<const json::value> fields) const;

    const json::value& item() const { return *chain_.back(); }
    /// What holds the item, `skip` levels further out; null beyond the record.
    const json::value* level(std::size_t skip) const;
    std::int64_t line() const { return line_; }  ///< or the number of the record, where a file has no lines
    /// The value that a name stands for, from `skip` levels further out; null when there is none.
    const json::value* find(std::string_view name, std::size_t skip) const;
    /// For a value inside this row: shares its owner.
    std::shared_ptr<const json::value> share(const json::value& part) const { return {chain_.back(), &part}; }

private:
    std::vector<std::shared_ptr<const json::value>> chain_;  ///< outermost first
    std::int64_t line_ = 0;
};

/// `a.b.0`, `^a`, `answers.[number]` (the key is what `number` stands for). `.` is the row's item, and so is the empty path.
class Path {
public:
    Path() = default;
    explicit Path(std::string text);
    /// Null when a key is missing.
    const json::value* find(const Row& row) const;
    /// BadRow when missing.
    const json::value& get(const Row& row) const;
    /// A whole number, or one written as text.
    std::int64_t integer(const Row& row) const;
    const std::string& text() const { return text_; }

private:
    std::string text_;
    std::size_t skip_ = 0;
    std::vector<std::string> keys_;
};

/// `{path}`, `{path|joiner}` for lists, `{path?}` where a missing or empty value is allowed.
class Template {
public:
    Template() = default;
    /// `place` names the key of the task file for messages.
    Template(const std::string& text, const json::Place& place);
    std::string render(const Row& row) const;
    /// Every path leads to a value.
    bool has_fields(const Row& row) const;
    /// And none of them is null.
    bool is_present(const Row& row) const;
    /// Every path in it is marked `?`.
    bool may_be_empty() const { return optional_; }
    bool empty() const { return parts_.empty(); }

private:
    struct Part {
        std::string literal, joiner;
        Path path;
        bool is_path = false, joins = false, optional = false;
    };
    std::vector<Part> parts_;
    bool optional_ = false;
};

/// Strings as they are, numbers and truth values as JSON writes them. BadRow for null, lists and objects; `what` names the field.
std::string text_of(const json::value& value, std::string_view what);

/// Calls act(Row) for every item of the list (or entry of the object, as $key and $value) at `path`; for the row itself when it is empty.
/// Lists on the way are walked too: `data.paragraphs.qas`. `*` walks the item itself, or the $value of an entry: `label.*.*`.
template <class Act>
void for_each_item(const Row& row, const std::string& path, Act&& act);
std::vector<Row> items(const Row& row, const std::string& path);

/// The row itself, or with `chain` a row [a, b] for each item a of the list that it is and the next one.
std::vector<Row> pairs(const Row& row, bool chain);

template <class Act>
void for_each_item(const Row& row, const std::string& path, Act&& act) {
    if (path.empty()) return act(row);
    for (const Row& item : items(row, path)) act(item);
}

}  // namespace rf::tasks
