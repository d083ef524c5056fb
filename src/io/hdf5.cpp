#include "io/hdf5.hpp"

#include "io/files.hpp"
#include "io/hdf5_file_driver.hpp"

#include <algorithm>
#include <cstring>

namespace rf::h5 {

namespace {

herr_t collect(unsigned depth, const H5E_error2_t* entry, void* text) {
    // The innermost entry carries the cause; the outermost repeats the call.
    if (depth == 0 && entry->desc) *static_cast<std::string*>(text) = entry->desc;
    return 0;
}

Datatype string_type() {
    Datatype type(check(H5Tcopy(H5T_C_S1), "string type"));
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

template <class T>
hid_t type_of() {
    if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
    else if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
    else if constexpr (std::is_same_v<T, std::int64_t>) return H5T_NATIVE_INT64;
    else if constexpr (std::is_same_v<T, std::int32_t>) return H5T_NATIVE_INT32;
    else if constexpr (std::is_same_v<T, std::uint64_t>) return H5T_NATIVE_UINT64;
    else if constexpr (std::is_same_v<T, std::uint16_t>) return H5T_NATIVE_UINT16;
    else return H5T_NATIVE_UINT8;
}

void describe(hid_t set, const Info& info) {
    set_attribute(set, "units", info.units);
    if (!info.description.empty()) set_attribute(set, "description", info.description);
}

void write_scalar(hid_t object, const std::string& name, hid_t type, const void* data) {
    if (has_attribute(object, name)) check(H5Adelete(object, name.c_str()), name);
    const Dataspace space(check(H5Screate(H5S_SCALAR), name));
    const Attribute attribute(check(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), name));
    check(H5Awrite(attribute, type, data), name);
}

void read_scalar(hid_t object, const std::string& name, hid_t type, void* data) {
    const Attribute attribute(check(H5Aopen(object, name.c_str(), H5P_DEFAULT), "attribute " + name));
    const Dataspace space(check(H5Aget_space(attribute), "attribute " + name));
    if (const hssize_t count = H5Sget_simple_extent_npoints(space); count != 1) fail("HDF5: attribute ", name, ": expected one value, found ", count);
    check(H5Aread(attribute, type, data), "attribute " + name);
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock() {
    static std::recursive_mutex mutex;
    return std::unique_lock(mutex);
}

hid_t check(hid_t id, const std::string& what) {
    if (const std::string damage = take_damage(); !damage.empty()) {
        H5Eclear2(H5E_DEFAULT);
        throw Damage(damage);
    }
    if (id >= 0) return id;
    std::string cause = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &collect, &cause);
    H5Eclear2(H5E_DEFAULT);
    // "file write failed: time = …, errno = 28, error message = 'No space left on device', buf = …": the words for people.
    constexpr std::string_view mark = "error message = '";
    if (const std::size_t begin = cause.find(mark), colon = cause.find(':'); begin != std::string::npos && colon < begin)
        cause = cause.substr(0, colon) + ": " + cause.substr(begin + mark.size(), cause.find('\'', begin + mark.size()) - begin - mark.size());
    fail("HDF5: ", what, ": ", cause);
}

namespace {
// The library prints its error stack by itself unless told not to; the stack goes into our exception instead.
void quiet() {
    // Nor does it end itself at exit: every file is closed by its handle, and a file that a full disk kept from being closed
    // would crash it there.
    static const herr_t once = (H5dont_atexit(), H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr));
    static_cast<void>(once);
}
}  // namespace

File create_file(const std::string& path, std::int64_t reserve) {
    quiet();
    // The earliest format that has what we use keeps the files readable everywhere; no times are stored, so equal
    // content gives equal bytes.
    const PropertyList access(check(H5Pcreate(H5P_FILE_ACCESS), path));
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    H5Pset_alignment(access, 1, 8);  // datasets are mapped and read in place
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);  // close_file closes, whatever handles still live
    const PropertyList create(check(H5Pcreate(H5P_FILE_CREATE), path));
    H5Pset_obj_track_times(create, false);
    check(H5Pset_userblock(create, static_cast<hsize_t>(reserve)), path);
    check(H5Pset_driver(access, file_driver(), nullptr), path);
    File file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, create, access));
    if (const std::string trouble = file < 0 ? take_write_trouble(path) : ""; !trouble.empty()) {
        H5Eclear2(H5E_DEFAULT);
        fail(trouble);
    }
    check(file, path);
    return file;
}

File open_file(const std::string& path) {
    quiet();
    return File(check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), path));
}

File open_checked_file(const std::string& path) {
    quiet();
    const PropertyList access(check(H5Pcreate(H5P_FILE_ACCESS), path));
    check(H5Pset_driver(access, checking_driver(), nullptr), path);
    return File(check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), path));
}

void close_file(File& file, const std::string& path) {
    check(H5Fclose(file.release()), path);
    if (const std::string trouble = take_write_trouble(path); !trouble.empty()) fail(trouble);
}

void flush_file(const File& file, const std::string& path) {
    check(H5Fflush(file, H5F_SCOPE_LOCAL), path);
    if (const std::string trouble = take_write_trouble(path); !trouble.empty()) fail(trouble);
}

Group create_group(hid_t parent, const std::string& name) {
    const PropertyList links(check(H5Pcreate(H5P_LINK_CREATE), name));
    H5Pset_create_intermediate_group(links, 1);
    const PropertyList create(check(H5Pcreate(H5P_GROUP_CREATE), name));
    H5Pset_obj_track_times(create, false);
    return Group(check(H5Gcreate2(parent, name.c_str(), links, create, H5P_DEFAULT), name));
}

bool exists(hid_t parent, const std::string& name) {
    // Every group on the way must be asked for: the library fails on a missing intermediate one.
    for (std::size_t at = name.find('/'); at != std::string::npos; at = name.find('/', at + 1))
        if (at > 0 && H5Lexists(parent, name.substr(0, at).c_str(), H5P_DEFAULT) <= 0) return false;
    return H5Lexists(parent, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> list(hid_t group) {
    H5G_info_t info;
    check(H5Gget_info(group, &info), "group");
    std::vector<std::string> names;
    for (hsize_t i = 0; i < info.nlinks; ++i) {
        const ssize_t size = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT);
        check(size, "group");
        H5L_info_t link;
        check(H5Lget_info_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, &link, H5P_DEFAULT), "group");
        if (link.type != H5L_TYPE_HARD) fail("HDF5: a link in a group leads elsewhere, which no file of this program has");
        std::string name(static_cast<std::size_t>(size), '\0');
        H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size() + 1, H5P_DEFAULT);
        names.push_back(std::move(name));
    }
    return names;
}

hid_t native_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::f64: return H5T_NATIVE_DOUBLE;
        case Dtype::f32: return H5T_NATIVE_FLOAT;
        case Dtype::i32: return H5T_NATIVE_INT32;
        case Dtype::bf16:
        case Dtype::u16: return H5T_NATIVE_UINT16;
        case Dtype::u8: return H5T_NATIVE_UINT8;
    }
    return -1;
}

namespace {
Dataset write_raw(hid_t parent, const std::string& name, hid_t type, int rank, const hsize_t* dims, const void* data,
                  const Info& info) {
    const Dataspace space(check(rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, dims, nullptr), name));
    const PropertyList create(check(H5Pcreate(H5P_DATASET_CREATE), name));
    H5Pset_layout(create, H5D_CONTIGUOUS);
    H5Pset_obj_track_times(create, false);
    const PropertyList links(check(H5Pcreate(H5P_LINK_CREATE), name));
    H5Pset_create_intermediate_group(links, 1);
    Dataset set(check(H5Dcreate2(parent, name.c_str(), type, space, links, create, H5P_DEFAULT), name));
    if (H5Sget_simple_extent_npoints(space) > 0) check(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), name);
    describe(set, info);
    return set;
}
}  // namespace

Dataset write(hid_t parent, const std::string& name, const ConstTensor& data, const Info& info) {
    hsize_t dims[Shape::max_rank] = {};
    for (int axis = 0; axis < data.shape.rank; ++axis) dims[axis] = static_cast<hsize_t>(data.shape[axis]);
    return write_raw(parent, name, native_type(data.dtype), data.shape.rank, dims, data.data, info);
}

RowWriter::RowWriter(hid_t parent, const std::string& name, hid_t type, const Shape& shape, const Info& info) : type_(type), shape_(shape), name_(name) {
    hsize_t dims[Shape::max_rank] = {};
    for (int axis = 0; axis < shape.rank; ++axis) dims[axis] = static_cast<hsize_t>(shape[axis]);
    const Dataspace space(check(H5Screate_simple(shape.rank, dims, nullptr), name));
    const PropertyList create(check(H5Pcreate(H5P_DATASET_CREATE), name));
    H5Pset_layout(create, H5D_CONTIGUOUS);
    H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    H5Pset_obj_track_times(create, false);
    set_ = Dataset(check(H5Dcreate2(parent, name.c_str(), type, space, H5P_DEFAULT, create, H5P_DEFAULT), name));
    describe(set_, info);
}

void RowWriter::add(const void* data, std::int64_t rows) {
    if (rows == 0) return;
    hsize_t start[Shape::max_rank] = {}, count[Shape::max_rank] = {};
    for (int axis = 0; axis < shape_.rank; ++axis) count[axis] = static_cast<hsize_t>(shape_[axis]);
    start[0] = static_cast<hsize_t>(at_), count[0] = static_cast<hsize_t>(rows);
    const Dataspace file(check(H5Dget_space(set_), name_)), memory(check(H5Screate_simple(shape_.rank, count, nullptr), name_));
    check(H5Sselect_hyperslab(file, H5S_SELECT_SET, start, nullptr, count, nullptr), name_);
    check(H5Dwrite(set_, type_, memory, file, H5P_DEFAULT, data), name_);
    at_ += rows;
}

template <class T>
Dataset write_vector(hid_t parent, const std::string& name, const std::vector<T>& data, const Info& info) {
    const hsize_t size = data.size();
    return write_raw(parent, name, type_of<T>(), 1, &size, data.data(), info);
}

namespace {
/// The number of items of a dataset, when the file has room for them: a size in a header is not believed before memory is taken by it.
std::size_t bounded_count(hid_t set, std::size_t item, const std::string& name) {
    const Dataspace space(check(H5Dget_space(set), name));
    const auto count = H5Sget_simple_extent_npoints(space);
    hsize_t bytes = 0;
    const File file(check(H5Iget_file_id(set), name));
    check(H5Fget_filesize(file, &bytes), name);
    if (count < 0 || static_cast<hsize_t>(count) > bytes / item) fail("HDF5: ", name, ": ", count, " items do not fit into a file of ", bytes, " bytes");
    return static_cast<std::size_t>(count);
}
}  // namespace

template <class T>
std::vector<T> read_vector(hid_t parent, const std::string& name) {
    const Dataset set(check(H5Dopen2(parent, name.c_str(), H5P_DEFAULT), name));
    const Datatype stored(check(H5Dget_type(set), name));
    std::vector<T> data(bounded_count(set, std::max<std::size_t>(1, H5Tget_size(stored)), name));
    if (!data.empty()) check(H5Dread(set, type_of<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, data.data()), name);
    return data;
}

#define RF_INSTANTIATE(T)                                                                             \
    template Dataset write_vector(hid_t, const std::string&, const std::vector<T>&, const Info&); \
    template std::vector<T> read_vector(hid_t, const std::string&)
RF_INSTANTIATE(double);
RF_INSTANTIATE(float);
RF_INSTANTIATE(std::int32_t);
RF_INSTANTIATE(std::int64_t);
RF_INSTANTIATE(std::uint64_t);
RF_INSTANTIATE(std::uint16_t);
RF_INSTANTIATE(std::uint8_t);
#undef RF_INSTANTIATE

void set_attribute(hid_t object, const std::string& name, const std::string& value) {
    const Datatype type = string_type();
    const char* text = value.c_str();
    write_scalar(object, name, type, &text);
}
void set_attribute(hid_t object, const std::string& name, double value) { write_scalar(object, name, H5T_NATIVE_DOUBLE, &value); }
void set_attribute(hid_t object, const std::string& name, std::int64_t value) { write_scalar(object, name, H5T_NATIVE_INT64, &value); }

bool has_attribute(hid_t object, const std::string& name) { return H5Aexists(object, name.c_str()) > 0; }

std::string string_attribute(hid_t object, const std::string& name) {
    const Datatype type = string_type();
    char* text = nullptr;
    read_scalar(object, name, type, &text);
    std::string value = text ? text : "";
    H5free_memory(text);
    return value;
}
std::int64_t int_attribute(hid_t object, const std::string& name) {
    std::int64_t value = 0;
    read_scalar(object, name, H5T_NATIVE_INT64, &value);
    return value;
}
double double_attribute(hid_t object, const std::string& name) {
    double value = 0;
    read_scalar(object, name, H5T_NATIVE_DOUBLE, &value);
    return value;
}

void write_strings(hid_t parent, const std::string& name, const std::vector<std::string>& data, const Info& info) {
    std::vector<const char*> text;
    for (const std::string& s : data) text.push_back(s.c_str());
    const Datatype type = string_type();
    const hsize_t size = data.size();
    write_raw(parent, name, type, 1, &size, text.data(), info);
}

std::vector<std::string> read_strings(hid_t parent, const std::string& name) {
    const Dataset set(check(H5Dopen2(parent, name.c_str(), H5P_DEFAULT), name));
    const Dataspace space(check(H5Dget_space(set), name));
    std::vector<char*> text(bounded_count(set, 1, name));
    const Datatype type = string_type();
    std::vector<std::string> data;
    if (text.empty()) return data;
    check(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()), name);
    for (const char* s : text) data.emplace_back(s ? s : "");
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, text.data());
    return data;
}

}  // namespace rf::h5
