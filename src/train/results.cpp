#include "train/results.hpp"

#include "core/build.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

namespace rf {

namespace {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string number(double x) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", x);
    // JSON has no NaN and no infinity.
    return std::isfinite(x) ? text : "null";
}

}  // namespace

Results::Results(std::filesystem::path folder, std::int64_t last_step) : folder_(std::move(folder)) { load_journal(last_step); }

Results::~Results() {
    if (journal_) std::fclose(journal_);
}

void Results::load_journal(std::int64_t last_step) {
    const std::filesystem::path path = folder_ / "results.jsonl";
    std::string kept;
    if (std::filesystem::exists(path)) {
        std::istringstream in(read_file(path));
        for (std::string line; std::getline(in, line);) {
            boost::system::error_code error;
            const json::value v = boost::json::parse(line, error);
            // A line torn by a kill can only be the last one.
            if (error || !v.is_object() || !v.as_object().contains("table") || !v.as_object().contains("row")) break;
            std::vector<double> row;
            for (const json::value& x : v.at("row").as_array())
                row.push_back(x.is_null() ? std::numeric_limits<double>::quiet_NaN() : x.to_number<double>());
            if (row.empty() || row[0] > static_cast<double>(last_step)) continue;
            loaded_[std::string(v.at("table").as_string())].push_back(row);
            kept += line + '\n';
        }
    }
    write_file_atomically(path, kept);
    journal_ = std::fopen(path.c_str(), "a");
    if (!journal_) fail("cannot write ", path.string(), ": ", std::strerror(errno));
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
    write_line(table, row);
    dirty_ = true;
}

void Results::write_line(const std::string& table, const std::vector<double>& row) {
    std::string line = "{\"table\":\"" + table + "\",\"row\":[";
    for (std::size_t c = 0; c < row.size(); ++c) line += (c ? "," : "") + number(row[c]);
    line += "]}\n";
    if (std::fwrite(line.data(), 1, line.size(), journal_) != line.size() || std::fflush(journal_) != 0)
        fail("cannot write ", (folder_ / "results.jsonl").string(), ": ", std::strerror(errno));
}

void Results::flush(bool now) {
    const double begin = now_seconds();
    if (!dirty_ || (!now && begin - last_flush_ < std::max(5.0, 100 * flush_cost_))) return;
    write_hdf5();
    last_flush_ = now_seconds();
    flush_cost_ = last_flush_ - begin;
    dirty_ = false;
}

void Results::write_hdf5() const {
    const std::filesystem::path path = folder_ / "results.h5", partial = folder_ / "results.h5.partial";
    {
        const auto hold = h5::lock();
        h5::File file = h5::create_file(partial);
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
        h5::check(H5Fflush(file, H5F_SCOPE_LOCAL), partial);
    }
    sync_path(partial);
    rename_durably(partial, path);
}

std::vector<double> Results::column(const std::string& table, const std::string& name) const {
    const Table& t = tables_.at(table);
    for (std::size_t c = 0; c < t.columns.size(); ++c)
        if (t.columns[c].name == name) return t.rows[c];
    fail("no column ", name, " in ", table);
}

}  // namespace rf
