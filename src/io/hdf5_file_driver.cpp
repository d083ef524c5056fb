#include "io/hdf5_file_driver.hpp"

#include "core/check.hpp"
#include "io/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace rf::h5 {

namespace {

std::map<std::string, std::string>& troubles() {
    static std::map<std::string, std::string> notes;
    return notes;
}

/// What the library holds of an open file: its own part first.
struct DrivenFile {
    H5FD_t own{};
    std::string path;
    std::shared_ptr<CheckedReader> checked;  ///< of checking_driver
    int fd = -1;
    haddr_t end_of_space = 0, end_of_file = 0;
    dev_t device = 0;
    ino_t inode = 0;
    timespec changed{};

    bool is_well() const { return !troubles().contains(path); }
    void note(const char* what) { troubles().emplace(path, message("cannot ", what, " ", path, ": ", std::strerror(errno))); }
};

DrivenFile& of(H5FD_t* file) { return *reinterpret_cast<DrivenFile*>(file); }
const DrivenFile& of(const H5FD_t* file) { return *reinterpret_cast<const DrivenFile*>(file); }

static_assert(std::is_standard_layout_v<DrivenFile>, "the library sees the first member");

H5FD_t* open_file(const char* name, unsigned flags, hid_t, haddr_t) {
    auto file = std::make_unique<DrivenFile>();
    file->path = name;
    troubles().erase(name);
    const int how = (flags & H5F_ACC_RDWR ? O_RDWR : O_RDONLY) | (flags & H5F_ACC_TRUNC ? O_TRUNC : 0) | (flags & H5F_ACC_CREAT ? O_CREAT : 0) |
                    (flags & H5F_ACC_EXCL ? O_EXCL : 0);
    file->fd = ::open(name, how | O_CLOEXEC, 0666);
    struct stat about {};
    if (file->fd < 0 || fstat(file->fd, &about) != 0) {
        file->note("open");
        if (file->fd >= 0) ::close(file->fd);
        return nullptr;
    }
    file->end_of_file = static_cast<haddr_t>(about.st_size);
    file->device = about.st_dev;
    file->inode = about.st_ino;
    file->changed = about.st_mtim;
    return &file.release()->own;
}

herr_t close_file(H5FD_t* file) {
    const std::unique_ptr<DrivenFile> mine(&of(file));
    if (::close(mine->fd) != 0) mine->note("close");
    return 0;
}

int compare(const H5FD_t* a, const H5FD_t* b) {
    const auto key = [](const DrivenFile& f) { return std::pair(f.device, f.inode); };
    return key(of(a)) < key(of(b)) ? -1 : key(of(b)) < key(of(a)) ? 1 : 0;
}

herr_t query(const H5FD_t*, unsigned long* flags) {
    if (flags)
        *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA |
                 H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

haddr_t end_of_space(const H5FD_t* file, H5FD_mem_t) { return of(file).end_of_space; }
herr_t set_end_of_space(H5FD_t* file, H5FD_mem_t, haddr_t end) {
    of(file).end_of_space = end;
    return 0;
}
haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) { return of(file).end_of_file; }

/// Places that were never written, or dropped, read as zeros.
herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, void* buffer) {
    DrivenFile& f = of(file);
    auto* to = static_cast<char*>(buffer);
    while (size > 0) {
        const ssize_t n = ::pread(f.fd, to, size, static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) f.note("read");
        if (n <= 0) break;
        to += n;
        at += static_cast<haddr_t>(n);
        size -= static_cast<size_t>(n);
    }
    std::memset(to, 0, size);
    return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, const void* buffer) {
    DrivenFile& f = of(file);
    f.end_of_file = std::max(f.end_of_file, at + size);
    const auto* from = static_cast<const char*>(buffer);
    while (size > 0 && f.is_well()) {
        const ssize_t n = ::pwrite(f.fd, from, size, static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            f.note("write");
            break;
        }
        from += n;
        at += static_cast<haddr_t>(n);
        size -= static_cast<size_t>(n);
    }
    return 0;
}

herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
    DrivenFile& f = of(file);
    if (f.end_of_space == f.end_of_file) return 0;
    if (f.is_well() && ::ftruncate(f.fd, static_cast<off_t>(f.end_of_space)) != 0) f.note("set the length of");
    f.end_of_file = f.end_of_space;
    return 0;
}

H5FD_class_t description() {
    H5FD_class_t c{};
    c.name = "roformer";
    c.maxaddr = (static_cast<haddr_t>(1) << 63) - 1;
    c.fc_degree = H5F_CLOSE_WEAK;
    c.open = &open_file;
    c.close = &close_file;
    c.cmp = &compare;
    c.query = &query;
    c.get_eoa = &end_of_space;
    c.set_eoa = &set_end_of_space;
    c.get_eof = &end_of_file;
    c.read = &read;
    c.write = &write;
    c.truncate = &truncate;
    // As the library's own driver keeps metadata and raw data apart (H5FD_FLMAP_DICHOTOMY).
    std::fill(std::begin(c.fl_map), std::end(c.fl_map), H5FD_MEM_SUPER);
    c.fl_map[H5FD_MEM_DRAW] = c.fl_map[H5FD_MEM_GHEAP] = H5FD_MEM_DRAW;
    return c;
}

// Files whose blocks are checked.

/// The first trouble met since it was last asked for.
struct DamageNote {
    std::string text;
    std::string absent;  ///< where the trouble is a file that is not there: its bare name
};
DamageNote& damage() {
    static DamageNote note;
    return note;
}
void note_damage(const std::string& what, const std::string& absent = {}) {
    if (damage().text.empty()) damage() = {what, absent};
}

/// What is known of files while any is open: the library opens a source of virtual datasets again for each of them.
struct Known {
    struct Entry {
        dev_t device;
        ino_t inode;
        timespec changed;
        std::shared_ptr<CheckedReader> reader;
    };
    std::map<std::string, Entry> files;
    int open = 0;
};
Known& known() {
    static Known all;
    return all;
}

std::shared_ptr<CheckedReader> reader_of(const DrivenFile& file) {
    const auto found = known().files.find(file.path);
    if (found != known().files.end()) {
        const Known::Entry& e = found->second;
        if (std::tuple(e.device, e.inode, e.changed.tv_sec, e.changed.tv_nsec) == std::tuple(file.device, file.inode, file.changed.tv_sec, file.changed.tv_nsec)) return e.reader;
    }
    auto reader = std::make_shared<CheckedReader>(file.path);
    known().files[file.path] = {file.device, file.inode, file.changed, reader};
    return reader;
}

herr_t close_checked(H5FD_t* file) {
    if (--known().open == 0) known().files.clear();
    return close_file(file);
}

H5FD_t* open_checked(const char* name, unsigned flags, hid_t driver, haddr_t most) {
    const std::string bare = std::filesystem::path(name).filename();
    H5FD_t* file = open_file(name, flags, driver, most);
    if (!file) {
        const std::string why = take_write_trouble(name);
        std::error_code ignored;
        const bool absent = !std::filesystem::exists(name, ignored);
        note_damage(absent ? message(name, ": missing") : why, absent ? bare : "");
        return nullptr;
    }
    ++known().open;
    try {
        of(file).checked = reader_of(of(file));
    } catch (const std::exception& e) {
        note_damage(e.what());
        close_checked(file);
        return nullptr;
    }
    // The library asks for a source in several folders until it finds one.
    if (damage().absent == bare) damage() = {};
    return file;
}

herr_t read_checked(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, void* buffer) {
    try {
        of(file).checked->read(of(file).fd, static_cast<std::int64_t>(at), static_cast<std::int64_t>(size), static_cast<char*>(buffer));
        return 0;
    } catch (const std::exception& e) {
        note_damage(e.what());
        return -1;
    }
}

}  // namespace

hid_t file_driver() {
    static const H5FD_class_t driver = description();
    static const hid_t id = H5FDregister(&driver);
    return id;
}

hid_t checking_driver() {
    static const H5FD_class_t driver = [] {
        H5FD_class_t c = description();
        c.name = "roformer-checked";
        c.open = &open_checked;
        c.close = &close_checked;
        c.read = &read_checked;
        return c;
    }();
    static const hid_t id = H5FDregister(&driver);
    return id;
}

std::string take_damage() { return std::exchange(damage(), {}).text; }

std::string take_write_trouble(const std::string& path) {
    const auto note = troubles().extract(path);
    return note ? note.mapped() : std::string();
}

}  // namespace rf::h5
