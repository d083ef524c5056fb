#include "app/bench_file.hpp"

#include "core/log.hpp"
#include "io/files.hpp"
#include "io/hdf5.hpp"
#include "io/schema.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

namespace rf::app {

namespace fs = std::filesystem;

namespace {

template <class T>
struct Column {
    h5::Info info;
    std::vector<T> values;
};

/// A group of columns of equal length.
class Table {
public:
    std::size_t rows() const { return rows_; }

    /// Those of the file. Throws where they are of different lengths.
    void read(hid_t file, const std::string& name, const std::string& path) {
        const h5::Group group(h5::check(H5Gopen2(file, name.c_str(), H5P_DEFAULT), path + ": /" + name));
        bool first = true;
        for (const std::string& column : h5::list(group)) {
            const h5::Dataset set(h5::check(H5Dopen2(group, column.c_str(), H5P_DEFAULT), path + ": /" + name + "/" + column));
            const auto said = [&](const char* what) { return h5::has_attribute(set, what) ? h5::string_attribute(set, what) : std::string(); };
            const h5::Info info{said("units"), said("description")};
            const h5::Datatype type(h5::check(H5Dget_type(set), column));
            std::size_t length = 0;
            if (H5Tget_class(type) == H5T_STRING) length = (texts_[column] = {info, h5::read_strings(group, column)}).values.size();
            else length = (numbers_[column] = {info, h5::read_vector<double>(group, column)}).values.size();
            if (!first && length != rows_) fail(path, ": /", name, "/", column, " has ", length, " rows, expected ", rows_, " as of the other columns");
            rows_ = length, first = false;
        }
    }

    void set(const std::string& name, const std::string& value, const std::string& description, const std::string& before = {}) {
        Column<std::string>& column = texts_[name];
        column.info = {"1", description};
        column.values.resize(rows_, before);
        column.values.push_back(value);
    }
    void set(const std::string& name, double value, const std::string& units, const std::string& description) {
        Column<double>& column = numbers_[name];
        column.info = {units, description};
        column.values.resize(rows_, std::numeric_limits<double>::quiet_NaN());
        column.values.push_back(value);
    }
    /// What was set is a row; columns of which nothing was set have none in it.
    void end_row() {
        ++rows_;
        for (auto& [name, column] : texts_) column.values.resize(rows_);
        for (auto& [name, column] : numbers_) column.values.resize(rows_, std::numeric_limits<double>::quiet_NaN());
    }

    void write(hid_t file, const std::string& name) const {
        const h5::Group group = h5::create_group(file, name);
        for (const auto& [column, data] : texts_) h5::write_strings(group, column, data.values, data.info);
        for (const auto& [column, data] : numbers_) h5::write_vector(group, column, data.values, data.info);
    }

private:
    std::map<std::string, Column<std::string>> texts_;
    std::map<std::string, Column<double>> numbers_;
    std::size_t rows_ = 0;
};

/// The folder of a file, for one program at a time; the others wait. The kernel's lock, which leaves nothing behind.
class Turn {
public:
    explicit Turn(const fs::path& file) : fd_(::open(file.has_parent_path() ? file.parent_path().c_str() : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        int failed = fd_ < 0 ? errno : 0;
        while (fd_ >= 0 && ::flock(fd_, LOCK_EX) != 0 && (failed = errno) == EINTR) failed = 0;
        if (failed != 0) log::warning("cannot lock the folder of ", file.string(), " (", std::strerror(failed), "): a program that adds to it at this moment could lose its row");
    }
    ~Turn() {
        if (fd_ >= 0) ::close(fd_);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

private:
    int fd_;
};

}  // namespace

std::string bench_file_trouble(const std::string& path) {
    if (const std::string trouble = place_trouble(path); !trouble.empty() || !fs::exists(path)) return trouble;
    const auto hold = h5::lock();
    const std::string expected = " (expected a file that bench wrote, or none)";
    if (H5Fis_hdf5(path.c_str()) <= 0) return path + " is no HDF5 file" + expected;
    const h5::File file = h5::open_file(path);
    if (!h5::has_attribute(file, schema::kind) || !h5::exists(file, "bench")) return path + " is no bench file" + expected;
    if (const std::string kind = h5::string_attribute(file, schema::kind); kind != schema::kind_bench) return path + ": " + kind + expected;
    Table().read(file, "bench", path);  // can be added to
    return {};
}

std::int64_t append_to_bench_file(const std::string& path, const BenchRow& row) {
    const Turn turn(path);
    const auto hold = h5::lock();
    Table bench, kernels;
    std::map<std::string, std::string> before;  // of files of one row each, which had these as attributes
    if (fs::exists(path)) {
        const h5::File file = h5::open_file(path);
        bench.read(file, "bench", path);
        if (h5::exists(file, "kernels")) kernels.read(file, "kernels", path);
        for (const BenchRow::Text& text : row.texts)
            if (h5::has_attribute(file, text.name)) before[text.name] = h5::string_attribute(file, text.name);
    }
    const std::size_t number = bench.rows();
    for (const BenchRow::Text& text : row.texts) bench.set(text.name, text.value, text.description, before[text.name]);
    for (const BenchRow::Number& n : row.numbers) bench.set(n.name, n.value, n.units, n.description);
    bench.end_row();
    for (const OpSum& op : row.ops) {
        kernels.set("measurement", static_cast<double>(number), "1", "row of /bench, from 0");
        kernels.set("name", op.name, "op on rank 0; of a product m x n x k, ~ where that axis differs between batches");
        kernels.set("calls", op.calls, "1", "an update");
        kernels.set("seconds", op.seconds, "s", "an update");
        kernels.set("flops", op.flops, "FLOP", "an update");
        kernels.set("bytes", op.bytes, "B", "an update, every operand moved once");
        kernels.end_row();
    }
    const std::string partial = path + ".partial";
    {
        h5::File file = h5::create_file(partial);
        h5::set_attribute(file, schema::kind, schema::kind_bench);
        h5::set_attribute(file, schema::version, std::int64_t{2});
        h5::set_attribute(file, "Conventions", "a row a measurement; attributes are of the last one");
        for (const BenchRow::Text& text : row.texts) h5::set_attribute(file, text.name, text.value);
        bench.write(file, "bench");
        kernels.write(file, "kernels");
        h5::close_file(file, partial);
    }
    sync_path(partial);
    rename_durably(partial, path);
    return static_cast<std::int64_t>(number);
}

}  // namespace rf::app
