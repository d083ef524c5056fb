#include "io/folder_lock.hpp"

#include "core/check.hpp"
#include "core/log.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

namespace rf {

namespace fs = std::filesystem;

namespace {

/// From the file's beginning; false: the disk did not take it, for the reason in errno.
bool write_whole(int fd, std::string_view text) {
    for (std::size_t done = 0; done < text.size();) {
        const ssize_t n = ::pwrite(fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
        if (n < 0 && errno != EINTR) return false;
        done += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
    }
    return true;
}

constexpr const char* title = "roformer-lock 1";

std::int64_t now() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }

struct Holder {
    std::string host, job;  ///< job: of Slurm, or "-"
    long long pid = 0;
    std::int64_t since = 0;

    static Holder self() {
        char host[256] = "";
        gethostname(host, sizeof host - 1);
        const char* job = std::getenv("SLURM_JOB_ID");
        return {host, job && *job ? job : "-", getpid(), now()};
    }
    std::string to_text() const { return message(title, "\nhost ", host, "\npid ", pid, "\njob ", job, "\nsince ", since, '\n'); }
    /// False where the text is not a whole one: its writer was killed over it.
    bool from_text(const std::string& text) {
        std::istringstream in(text);
        std::string line, word;
        return std::getline(in, line) && line == title && in >> word >> host && word == "host" && in >> word >> pid && word == "pid" && in >> word >> job &&
               word == "job" && in >> word >> since && word == "since";
    }
    std::string age() const {
        const std::int64_t s = std::max<std::int64_t>(0, now() - since);  // clocks of hosts differ
        if (s < 120) return message(s, " s");
        if (s < 7200) return message(s / 60, " min");
        if (s < 172800) return message(s / 3600, " h");
        return message(s / 86400, " days");
    }
    std::string name() const { return message("process ", pid, " on host ", host, job == "-" ? "" : ", Slurm job " + job, ", for ", age()); }
};

std::string read_all(int fd) {
    char text[1024];
    const ssize_t n = ::pread(fd, text, sizeof text, 0);
    return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : std::string();
}

/// Whether `fd` is still the file of that name: its former holder removes it when it ends.
bool is_named(int fd, const fs::path& path) {
    struct stat open {}, named {};
    return fstat(fd, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

enum class Grip { held, refused, unknown };

/// The kernel's answer; `unknown` where the file system has no locks.
Grip grip(int fd) {
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) return Grip::held;
    return errno == EAGAIN || errno == EACCES ? Grip::refused : Grip::unknown;
}

}  // namespace

FolderLock::FolderLock(const fs::path& folder) : file_(folder / ".lock") {
    fs::create_directories(folder);
    const Holder self = Holder::self();
    Grip kernel = Grip::unknown;
    for (;;) {
        fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd_ < 0) fail("cannot open ", file_.string(), ": ", std::strerror(errno));
        kernel = grip(fd_);
        if (kernel == Grip::refused || is_named(fd_, file_)) break;
        ::close(fd_);
    }
    // From here on a throw must not take the holder's file away.
    const auto refuse = [&](const std::string& text) {
        ::close(std::exchange(fd_, -1));
        fail_usage(text);
    };
    Holder holder;
    const bool told = holder.from_text(read_all(fd_));
    const std::string who = told ? holder.name() : "another process that has just begun";
    const bool here = told && holder.host == self.host, again = told && self.job != "-" && holder.job == self.job;
    const bool lives = here && kernel == Grip::unknown && holder.pid != self.pid && (kill(static_cast<pid_t>(holder.pid), 0) == 0 || errno == EPERM);
    if (kernel == Grip::refused || lives)
        refuse(message(folder.string(), " is in use by ", who, "; let that run end or choose another folder"));
    if (told && !here && !again)
        refuse(message(folder.string(), " is held by ", who, ", and from this host it cannot be told whether that still runs; when it does not (its node failed, say), remove ",
                       file_.string(), " and start again"));
    if (told) log::write_line(message("note: ", folder.string(), " was left without notice by ", who, "; taken over"));
    const std::string text = self.to_text();
    if (::ftruncate(fd_, 0) != 0 || !write_whole(fd_, text)) {
        const int error = errno;
        ::unlink(file_.c_str());
        ::close(std::exchange(fd_, -1));
        fail("cannot write ", file_.string(), ": ", std::strerror(error));
    }
}

FolderLock::FolderLock(FolderLock&& other) noexcept : file_(std::move(other.file_)), fd_(std::exchange(other.fd_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(fd_, other.fd_);
    return *this;
}

FolderLock::~FolderLock() {
    if (fd_ < 0) return;
    // The name goes first: whoever waits for the lock then finds that this is no longer the file.
    ::unlink(file_.c_str());
    ::close(fd_);
}

FolderLock lock_folder(const fs::path& folder, const std::string& place, Communicator& world) {
    FolderLock lock;
    std::string trouble;
    if (world.rank() == 0) {
        try {
            lock = FolderLock(folder);
        } catch (const UsageError& e) {
            trouble = message(place, ": ", e.what());
        } catch (const fs::filesystem_error& e) {
            trouble = message(place, ": cannot write the output folder ", folder.string(), " (", e.code().message(), ")");
        } catch (const std::exception& e) {
            trouble = message(place, ": cannot write the output folder ", folder.string(), " (", e.what(), ")");
        }
    }
    world.broadcast(trouble, 0);
    if (!trouble.empty()) throw UsageError(trouble);
    return lock;
}

}  // namespace rf
