#pragma once
/// One program at a time writes an output folder. The lock is the file `.lock` in it: the kernel's own (OFD) lock, which goes with the process
/// however that ends, and a text that says who holds it: host, process, batch job, since when. Where the file system knows no locks, or
/// its locks do not reach from host to host, the text decides.

#include "comm/communicator.hpp"

#include <filesystem>
#include <string>

namespace rf {

class FolderLock {
public:
    FolderLock() = default;
    /// Makes the folder where it is missing, and takes its lock. One that was left by a killed program of this host, or by an earlier
    /// start of this very batch job, is taken over with a note. Throws a UsageError that names the holder and the lock's age.
    explicit FolderLock(const std::filesystem::path& folder);
    FolderLock(FolderLock&& other) noexcept;
    FolderLock& operator=(FolderLock&& other) noexcept;
    /// Gives the folder back.
    ~FolderLock();

private:
    std::filesystem::path file_;
    int fd_ = -1;
};

/// Rank 0 takes the lock; its trouble reaches every rank as a UsageError that begins with `place`. Collective.
FolderLock lock_folder(const std::filesystem::path& folder, const std::string& place, Communicator& world);

}  // namespace rf
