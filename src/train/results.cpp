#include "train/results.hpp"

#include "core/build.hpp"
#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

namespace rf {

namespace {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string number(double x) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", x);
    // JSON has no NaN and no infinity.
    return std::isfinite(x) ? text : "null";
}

/// A line of the journal: an object without its last brace, and the digest of what is before it.
std::string sealed(const std::string& line) {
    return line + ",\"xxh3\":\"" + digest(line.data(), static_cast<std::int64_t>(line.size())).substr(0, 16) + "\"}";
}

/// The row of a journal's line; false where the line is not what was written.
bool read_line(const std::string& line, std::string& table, std::vector<double>& row) {
    const std::size_t at = line.rfind(",\"xxh3\":\"");
    if (at == std::string::npos || sealed(line.substr(0, at)) != line) return false;
    json::value v;
    try {
        v = json::parse(line, "");  // every bit of a number
    } catch (const Error&) {
        return false;
    }
    if (!v.is_object()) return false;
    const auto* name = v.as_object().if_contains("table");
    const auto* values = v.as_object().if_contains("row");
    if (!name || !name->is_string() || !values || !values->is_array() || values->as_array().empty()) return false;
    table = name->as_string();
    row.clear();
    for (const json::value& x : values->as_array()) {
        if (!x.is_number() && !x.is_null()) return false;
        row.push_back(x.is_null() ? std::numeric_limits<double>::quiet_NaN() : x.to_number<double>());
    }
    return true;
}

}  // namespace

Results::Results(std::filesystem::path folder, std::int64_t last_step) : folder_(std::move(folder)) { load_journal(last_step); }

Results::~Results() {
    if (journal_ >= 0) ::close(journal_);
}

void Results::load_journal(std::int64_t last_step) {
    const std::filesystem::path path = folder_ / "results.jsonl";
    std::string kept;
    if (std::filesystem::exists(path)) {
        const std::string text = read_file(path);
        std::int64_t number = 0, damaged = 0, first = 0;
        std::string table;
        std::vector<double> row;
        for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
            end = std::min(text.find('\n', begin), text.size());
            std::string line = text.substr(begin, end - begin);
            ++number;
            bool whole = read_line(line, table, row);
            if (!whole && end == text.size()) {  // perhaps only its end of line is damaged
                line.pop_back();
                whole = read_line(line, table, row);
            }
            if (!whole) {
                if (end == text.size()) break;  // torn by a kill
                if (++damaged == 1) first = number;
                continue;
            }
            if (row[0] > static_cast<double>(last_step)) continue;
            loaded_[table].push_back(row);
            kept += line + '\n';
        }
        if (damaged > 0)
            log::warning(path.string(), ":", first, ": differs from its digest", damaged > 1 ? message(", and so do ", damaged - 1, " more lines") : "",
                         "; what it said is missing in results.h5");
    }
    write_file_atomically(path, kept);
    journal_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (journal_ < 0) fail("cannot write ", path.string(), ": ", std::strerror(errno));
}

void Results::declare(const std::string& table, std::vector<Column> columns) {
    Table& t = tables_[table];
    t.columns = std::move(columns);
    t.rows.resize(t.columns.size());
    for (const auto& row : loaded_[table]) {
        RF_REQUIRE(row.size() == t.columns.size(), folder_.string(), "/results.jsonl: a row of ", table, " has ", row.size(), " columns, expected ",
                   t.columns.size());
        for (std::size_t c = 0; c < row.size(); ++c) t.rows[c].push_back(row[c]);
    }
    loaded_.erase(table);
}

void Results::append(const std::string& table, const std::vector<double>& row) {
    Table& t = tables_.at(table);
    RF_REQUIRE(row.size() == t.columns.size(), "a row of ", table, " needs ", t.columns.size(), " values");
    for (std::size_t c = 0; c < row.size(); ++c) t.rows[c].push_back(row[c]);
    std::string line = "{\"table\":\"" + table + "\",\"row\":[";
    for (std::size_t c = 0; c < row.size(); ++c) line += (c ? "," : "") + number(row[c]);
    unwritten_ += sealed(line + "]") + '\n';
    write_rows();
    dirty_ = true;
}

bool Results::write_rows() {
    while (!unwritten_.empty()) {
        const ssize_t n = ::write(journal_, unwritten_.data(), unwritten_.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            row_trouble_ = message("cannot write ", journal().string(), ": ", std::strerror(errno));
            return false;
        }
        unwritten_.erase(0, static_cast<std::size_t>(n));
    }
    row_trouble_.clear();
    return true;
}

void Results::flush(bool now) {
    const double begin = now_seconds();
    if (now) write_rows();
    if (!dirty_ || (!now && begin - last_flush_ < std::max(5.0, 100 * flush_cost_))) return;
    try {
        write_hdf5();
        file_trouble_.clear();
        dirty_ = false;
    } catch (const std::exception& e) {
        file_trouble_ = e.what();
        std::error_code ignored;
        std::filesystem::remove(folder_ / "results.h5.partial", ignored);  // its room may be what is lacking
    }
    last_flush_ = now_seconds();
    flush_cost_ = last_flush_ - begin;
}

void Results::write_hdf5() const {
    const std::filesystem::path path = folder_ / "results.h5", partial = folder_ / "results.h5.partial";
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(partial, seal_bytes);
        h5::set_attribute(file, schema::kind, schema::kind_results);
        h5::set_attribute(file, schema::version, std::int64_t{1});
        h5::set_attribute(file, "Conventions", "columns of equal length; dimension scale: step");
        const h5::Group meta = h5::create_group(file, "meta");
        h5::set_attribute(meta, "program", message("roformer ", program_version));
        for (const auto& [name, value] : meta_) {
            if (value.is_string()) h5::set_attribute(meta, name, std::string(value.as_string()));
            else if (value.is_int64()) h5::set_attribute(meta, name, value.as_int64());
            else if (value.is_double()) h5::set_attribute(meta, name, value.as_double());
            else h5::set_attribute(meta, name, json::pretty(value));
        }
        for (const auto& [name, table] : tables_) {
            const h5::Group group = h5::create_group(file, name);
            h5::Dataset scale;
            for (std::size_t c = 0; c < table.columns.size(); ++c) {
                const Column& column = table.columns[c];
                h5::Dataset set = h5::write_vector(group, column.name, table.rows[c], {column.units, column.description});
                // The attributes of HDF5's dimension-scale convention; its own library is not linked for two strings.
                if (c == 0) h5::set_attribute(set, "axis", "updates done when the row was written");
            }
        }
        h5::close_file(file, partial.string());
    }
    seal_file(partial);
    rename_durably(partial, path);
}

std::vector<double> Results::column(const std::string& table, const std::string& name) const {
    const Table& t = tables_.at(table);
    for (std::size_t c = 0; c < t.columns.size(); ++c)
        if (t.columns[c].name == name) return t.rows[c];
    fail("no column ", name, " in ", table);
}

}  // namespace rf
