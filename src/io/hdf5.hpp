#pragma once
/// HDF5 with owners for its handles. The only header that includes hdf5.h.
/// The library is not thread-safe here: hold `h5::lock()` around every use, in every thread.

#include "core/check.hpp"
#include "core/tensor.hpp"

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace rf::h5 {

std::unique_lock<std::recursive_mutex> lock();

/// Owns one identifier and closes it with the call of its kind.
template <herr_t (*Close)(hid_t)>
class Handle {
public:
    Handle() = default;
    explicit Handle(hid_t id) : id_(id) {}
    Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
    Handle& operator=(Handle&& other) noexcept {
        std::swap(id_, other.id_);
        return *this;
    }
    ~Handle() { close(); }
    void close() {
        if (id_ >= 0) Close(id_);
        id_ = -1;
    }
    operator hid_t() const { return id_; }
    hid_t release() { return std::exchange(id_, -1); }

private:
    hid_t id_ = -1;
};

using File = Handle<H5Fclose>;
using Group = Handle<H5Gclose>;
using Dataset = Handle<H5Dclose>;
using Dataspace = Handle<H5Sclose>;
using Datatype = Handle<H5Tclose>;
using Attribute = Handle<H5Aclose>;
using PropertyList = Handle<H5Pclose>;

/// Throws with HDF5's own words and `what` (a path or a name) when the library reports a failure; Damage when a checked file has shown some.
hid_t check(hid_t id, const std::string& what);

/// Truncates. `reserve`: bytes at the file's begin that HDF5 leaves alone (0, or 512 and its doubles).
File create_file(const std::string& path, std::int64_t reserve = 0);
File open_file(const std::string& path);    ///< read only
/// Read only, a file with a digest beside it, as its virtual datasets' sources have: what is read has been compared with the digests, and `check`
/// throws Damage where they differ.
File open_checked_file(const std::string& path);
/// Writes out what the library still holds and closes the file. Throws with file and reason when any write since it was created failed; until
/// then failures are kept from the library (see hdf5_file_driver.hpp).
void close_file(File& file, const std::string& path);
/// The same of a file that stays open.
void flush_file(const File& file, const std::string& path);
Group create_group(hid_t parent, const std::string& name);
bool exists(hid_t parent, const std::string& name);
/// Names of the links in a group, sorted. This program makes hard links only; a group with others is not its own and an error.
std::vector<std::string> list(hid_t group);

/// Groups within groups that a file of this program never reaches; a damaged or foreign one may hold a group within itself.
inline constexpr int deepest_group = 16;

hid_t native_type(Dtype dtype);  ///< bf16 is stored as u16 bits

/// A contiguous dataset written whole, with `units` and `description` attributes.
struct Info {
    std::string units = "1";
    std::string description;
};
Dataset write(hid_t parent, const std::string& name, const ConstTensor& data, const Info& info);
/// A contiguous dataset of known size that is filled from the front, some rows (numbers of its first axis) at a time.
class RowWriter {
public:
    RowWriter(hid_t parent, const std::string& name, hid_t type, const Shape& shape, const Info& info);
    void add(const void* data, std::int64_t rows);
    const Dataset& set() const { return set_; }

private:
    Dataset set_;
    hid_t type_;
    Shape shape_;
    std::int64_t at_ = 0;
    std::string name_;
};
/// A vector of numbers (double, float, integers) as a one-dimensional dataset.
template <class T>
Dataset write_vector(hid_t parent, const std::string& name, const std::vector<T>& data, const Info& info);
template <class T>
std::vector<T> read_vector(hid_t parent, const std::string& name);

void set_attribute(hid_t object, const std::string& name, const std::string& value);
void set_attribute(hid_t object, const std::string& name, double value);
void set_attribute(hid_t object, const std::string& name, std::int64_t value);
inline void set_attribute(hid_t object, const std::string& name, const char* value) { set_attribute(object, name, std::string(value)); }
bool has_attribute(hid_t object, const std::string& name);
std::string string_attribute(hid_t object, const std::string& name);
std::int64_t int_attribute(hid_t object, const std::string& name);
double double_attribute(hid_t object, const std::string& name);

/// UTF-8 strings of variable length as a one-dimensional dataset.
void write_strings(hid_t parent, const std::string& name, const std::vector<std::string>& data, const Info& info);
std::vector<std::string> read_strings(hid_t parent, const std::string& name);

}  // namespace rf::h5
