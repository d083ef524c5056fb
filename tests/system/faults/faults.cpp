/// A disk that fails on command, for tests: preloaded (LD_PRELOAD), it stands between a program and the C library, counts the calls that
/// change files under one folder, and lets chosen ones fail. The program under test knows nothing of it.
///
///   FAULT_FOLDER  only files whose path holds this text count; without it nothing is touched
///   FAULT_ERROR   EIO ENOSPC EROFS EDQUOT: the error of a failing call; SHORT: a write takes half of its bytes; TORN: a rename is done and
///                 said to have failed (EIO); SLOW: the call takes 50 ms longer
///   FAULT_AT      number of the first failing call, from 1; 0: none (calls are only counted)
///   FAULT_COUNT   how many calls fail from there on; 0: all (default 1)
///   FAULT_SWEEP   1: instead of FAULT_AT, for folders whose name holds `step-N`: where N is odd, its call number (N + 1) / 2 fails, so that
///                 one run of many checkpoints meets every call of one
///   FAULT_CALLS   which calls count: names parted by commas (default: all)
///   FAULT_RANK    only this rank (default: all)
///   FAULT_LOG     a file that gets a line for every call that counts: `number call path`, and ` FAILS` after those that fail

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <string>

namespace {

std::string setting(const char* name, const char* otherwise = "") {
    const char* value = std::getenv(name);
    return value ? value : otherwise;
}

/// What the environment asks for, read once.
struct Settings {
    std::string folder = setting("FAULT_FOLDER"), error = setting("FAULT_ERROR", "EIO"), calls = "," + setting("FAULT_CALLS") + ",";
    long at = std::atol(setting("FAULT_AT", "0").c_str()), count = std::atol(setting("FAULT_COUNT", "1").c_str());
    bool sweep = setting("FAULT_SWEEP") == "1";
    int log = -1;
    Settings() {
        const std::string rank = setting("FAULT_RANK"), own = setting("OMPI_COMM_WORLD_RANK", "0"), path = setting("FAULT_LOG");
        if (!rank.empty() && rank != own) folder.clear();
        if (!folder.empty() && !path.empty())
            log = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    }
    int code() const {
        if (error == "ENOSPC") return ENOSPC;
        if (error == "EROFS") return EROFS;
        if (error == "EDQUOT") return EDQUOT;
        return EIO;
    }
};

const Settings& settings() {
    static const Settings s;
    return s;
}

std::string path_of(int fd) {
    char link[40], path[PATH_MAX];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path);
    return n > 0 ? std::string(path, static_cast<std::size_t>(n)) : std::string();
}

std::string whole_path(int folder, const char* path) {
    if (path[0] == '/') return path;
    char here[PATH_MAX];
    return (folder == AT_FDCWD ? std::string(getcwd(here, sizeof here) ? here : "") : path_of(folder)) + "/" + path;
}

/// Counts a call; true when it is one that is to fail.
bool is_hit(const char* call, const std::string& path) {
    const Settings& s = settings();
    if (s.folder.empty() || path.find(s.folder) == std::string::npos) return false;
    if (s.calls != ",," && s.calls.find("," + std::string(call) + ",") == std::string::npos) return false;
    static std::mutex mutex;
    static std::map<long, long> counts;  // by step of a sweep
    const std::lock_guard hold(mutex);
    long step = 0, at = s.at;
    if (s.sweep) {
        const std::size_t place = path.find("step-");
        if (place == std::string::npos) return false;
        step = std::atol(path.c_str() + place + 5);
        at = step % 2 == 1 ? (step + 1) / 2 : 0;
    }
    const long number = ++counts[step];
    const bool hit = at > 0 && number >= at && (s.count == 0 || number < at + s.count);
    if (s.log >= 0) {
        const std::string line = std::to_string(number) + " " + call + " " + path + (hit ? " FAILS\n" : "\n");
        syscall(SYS_write, s.log, line.data(), line.size());
    }
    return hit;
}

/// Whether a call that was hit is to return an error at once; `SHORT`, `TORN` and `SLOW` are of their own kind.
bool fails_at_once() {
    const Settings& s = settings();
    if (s.error == "SLOW") {
        const timespec pause{0, 50000000};
        nanosleep(&pause, nullptr);
        return false;
    }
    if (s.error == "SHORT" || s.error == "TORN") return false;
    errno = s.code();
    return true;
}

template <class F>
F real(const char* name) {
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

std::size_t shortened(std::size_t bytes) { return settings().error == "SHORT" && bytes > 1 ? bytes / 2 : bytes; }

constexpr int changes = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;

int open_with(const char* name, const char* path, int flags, mode_t mode) {
    if ((flags & changes) && is_hit("open", whole_path(AT_FDCWD, path)) && fails_at_once()) return -1;
    return real<int (*)(const char*, int, ...)>(name)(path, flags, mode);
}

int open_at_with(const char* name, int folder, const char* path, int flags, mode_t mode) {
    if ((flags & changes) && is_hit("open", whole_path(folder, path)) && fails_at_once()) return -1;
    return real<int (*)(int, const char*, int, ...)>(name)(folder, path, flags, mode);
}

mode_t mode_of(int flags, va_list& list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

int rename_with(const std::string& to, auto&& rename) {
    if (!is_hit("rename", to)) return rename();
    if (fails_at_once()) return -1;
    const int result = rename();
    if (settings().error != "TORN") return result;
    errno = EIO;
    return -1;
}

}  // namespace

extern "C" {

#define RF_OPEN(name)                                      \
    int name(const char* path, int flags, ...) {           \
        va_list list;                                      \
        va_start(list, flags);                             \
        const mode_t mode = mode_of(flags, list);          \
        va_end(list);                                      \
        return open_with(#name, path, flags, mode);        \
    }
RF_OPEN(open)
RF_OPEN(open64)

#define RF_OPEN_AT(name)                                         \
    int name(int folder, const char* path, int flags, ...) {     \
        va_list list;                                            \
        va_start(list, flags);                                   \
        const mode_t mode = mode_of(flags, list);                \
        va_end(list);                                            \
        return open_at_with(#name, folder, path, flags, mode);   \
    }
RF_OPEN_AT(openat)
RF_OPEN_AT(openat64)

ssize_t write(int fd, const void* data, size_t bytes) {
    static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
    if (settings().folder.empty() || !is_hit("write", path_of(fd))) return next(fd, data, bytes);
    return fails_at_once() ? -1 : next(fd, data, shortened(bytes));
}

ssize_t writev(int fd, const iovec* parts, int count) {
    static const auto next = real<ssize_t (*)(int, const iovec*, int)>("writev");
    if (settings().folder.empty() || !is_hit("writev", path_of(fd))) return next(fd, parts, count);
    if (fails_at_once()) return -1;
    if (settings().error != "SHORT") return next(fd, parts, count);
    iovec first = parts[0];
    first.iov_len = shortened(first.iov_len);
    return next(fd, &first, 1);
}

#define RF_PWRITE(name)                                                                        \
    ssize_t name(int fd, const void* data, size_t bytes, off_t offset) {                       \
        static const auto next = real<ssize_t (*)(int, const void*, size_t, off_t)>(#name);    \
        if (settings().folder.empty() || !is_hit("pwrite", path_of(fd))) return next(fd, data, bytes, offset); \
        return fails_at_once() ? -1 : next(fd, data, shortened(bytes), offset);                \
    }
RF_PWRITE(pwrite)
RF_PWRITE(pwrite64)

#define RF_ON_DESCRIPTOR(name)                                                                  \
    int name(int fd) {                                                                          \
        static const auto next = real<int (*)(int)>(#name);                                     \
        if (!settings().folder.empty() && is_hit(#name, path_of(fd)) && fails_at_once()) return -1; \
        return next(fd);                                                                        \
    }
RF_ON_DESCRIPTOR(fsync)
RF_ON_DESCRIPTOR(fdatasync)

#define RF_TRUNCATE(name)                                                                       \
    int name(int fd, off_t size) {                                                              \
        static const auto next = real<int (*)(int, off_t)>(#name);                              \
        if (!settings().folder.empty() && is_hit("ftruncate", path_of(fd)) && fails_at_once()) return -1; \
        return next(fd, size);                                                                  \
    }
RF_TRUNCATE(ftruncate)
RF_TRUNCATE(ftruncate64)

int rename(const char* from, const char* to) {
    static const auto next = real<int (*)(const char*, const char*)>("rename");
    return rename_with(whole_path(AT_FDCWD, to), [&] { return next(from, to); });
}

int renameat(int from_folder, const char* from, int to_folder, const char* to) {
    static const auto next = real<int (*)(int, const char*, int, const char*)>("renameat");
    return rename_with(whole_path(to_folder, to), [&] { return next(from_folder, from, to_folder, to); });
}

int mkdir(const char* path, mode_t mode) {
    static const auto next = real<int (*)(const char*, mode_t)>("mkdir");
    if (is_hit("mkdir", whole_path(AT_FDCWD, path)) && fails_at_once()) return -1;
    return next(path, mode);
}

int unlink(const char* path) {
    static const auto next = real<int (*)(const char*)>("unlink");
    if (is_hit("unlink", whole_path(AT_FDCWD, path)) && fails_at_once()) return -1;
    return next(path);
}

int unlinkat(int folder, const char* path, int flags) {
    static const auto next = real<int (*)(int, const char*, int)>("unlinkat");
    if (is_hit("unlink", whole_path(folder, path)) && fails_at_once()) return -1;
    return next(folder, path, flags);
}

}  // extern "C"
