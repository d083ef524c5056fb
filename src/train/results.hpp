#pragma once
/// results.h5: `/meta` (attributes), `/train` and `/eval/<task>` (one-dimensional columns of equal length). Rows are first
/// appended to the journal `results.jsonl`, one JSON object a line; the HDF5 file is made anew from it and put in place by
/// a rename. So a killed run leaves a readable file, and a continued one drops the rows after its checkpoint: no hole,
/// no double row. Where the disk refuses, rows wait in memory and are written when it takes them again; `trouble` says why.

#include "io/json.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace rf {

struct Column {
    std::string name;
    std::string units;
    std::string description;
};

class Results {
public:
    /// Opens or creates the journal in `folder`. Rows whose "step" is above `last_step` are dropped.
    Results(std::filesystem::path folder, std::int64_t last_step);
    ~Results();
    Results(const Results&) = delete;
    Results& operator=(const Results&) = delete;

    /// Declares a table ("train", "eval/mlm") before its first row; the first column is the step.
    void declare(const std::string& table, std::vector<Column> columns);
    void set_meta(const std::string& name, json::value value) { meta_[name] = std::move(value); }
    /// Appends one row and hands it to the operating system, with those that could not be before.
    void append(const std::string& table, const std::vector<double>& row);
    /// Rewrites results.h5 when rows are new and the last rewriting was long enough ago to cost below 1 % of the time,
    /// or at once when `now`.
    void flush(bool now);
    /// Hands rows that wait to the operating system; false when it does not take them.
    bool write_rows();
    /// What could not be written when it was last tried: file and reason; empty when all is.
    const std::string& trouble() const { return row_trouble_.empty() ? file_trouble_ : row_trouble_; }
    std::filesystem::path journal() const { return folder_ / "results.jsonl"; }
    /// Values of one column so far.
    std::vector<double> column(const std::string& table, const std::string& name) const;

private:
    struct Table {
        std::vector<Column> columns;
        std::vector<std::vector<double>> rows;  ///< column-wise
    };
    void load_journal(std::int64_t last_step);
    void write_hdf5() const;

    std::filesystem::path folder_;
    int journal_ = -1;         ///< descriptor
    std::string unwritten_;    ///< bytes that the journal has not got yet; a torn line is continued where it was torn
    std::string row_trouble_, file_trouble_;
    std::map<std::string, Table> tables_;
    std::map<std::string, std::vector<std::vector<double>>> loaded_;  ///< rows of tables not declared yet
    std::map<std::string, json::value> meta_;
    bool dirty_ = true;
    double last_flush_ = 0, flush_cost_ = 0;
};

}  // namespace rf
