#pragma once
/// Files that are whole or absent, and digests of what they hold.

#include "core/check.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

/// XXH3, 128 bits, as 32 hexadecimal digits (xxhash.com; the library libxxhash).
std::string digest(const void* data, std::int64_t bytes);

/// Why no file can be written at this path, or empty: no folder, no permission, a folder in its place.
std::string place_trouble(const std::string& path);
/// Flushes a file or folder to the disk; throws naming it.
void sync_path(const std::filesystem::path& path);
/// Writes path.partial, flushes it, renames it to path and flushes the folder: a reader sees all or nothing.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);
/// Renames and flushes both folders.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// Writes a file in place, without flushing it to the disk: for what is only an intermediate state and checked when it is read.
void write_file(const std::filesystem::path& path, std::string_view content);
std::string read_file(const std::filesystem::path& path);

/// Digest of a file in blocks, so that damage can be placed: kept beside the file as `<file>.digest`.
struct FileDigest {
    /// A named byte range of the file (a dataset), to say what a damaged block belongs to.
    struct Range {
        std::string name;
        std::int64_t begin = 0;
        std::int64_t end = 0;
    };
    std::int64_t size = 0;
    std::int64_t block = 1 << 20;
    std::vector<std::string> blocks;
    std::vector<Range> ranges;

    /// The bytes of one block, in words: file, byte range, what they hold.
    std::string place_of(const std::filesystem::path& file, std::int64_t block_index) const;
};
/// A file is not what its digest says, or there is none, or the disk does not give it back.
class Damage : public UsageError {
    using UsageError::UsageError;
};
/// Reads the whole file, writes `<file>.digest` (itself protected by a digest), flushes both.
void write_digest(const std::filesystem::path& file, std::vector<FileDigest::Range> ranges);
/// A digest within the file instead, for one that is put in place by a single rename: the first `seal_bytes` of the file, which the writer
/// has left free, say what the rest must be. Flushes the file.
inline constexpr std::int64_t seal_bytes = 512;
void seal_file(const std::filesystem::path& file);
/// Whether a file claims to be sealed: it does not begin as an HDF5 file without free bytes before it does.
bool has_seal(const std::filesystem::path& file);

/// Which blocks of a file are looked at: the one of `parts` equal runs of blocks with number `part`, so that ranks share the reading; none where `parts` is 0.
struct BlockShare {
    std::int64_t part = 0;
    std::int64_t parts = 1;
};
/// Empty when the file has its size and those blocks agree with its digest or seal; otherwise what is wrong: file, tensor, byte range. `first_block`:
/// set to the number of the first damaged block, 0 where the file as a whole is wrong.
std::string find_damage(const std::filesystem::path& file, BlockShare share = {}, std::int64_t* first_block = nullptr);

/// Compares a file's blocks with its digest as they are read, each before any byte of it is handed on. One thread calls it.
class CheckedReader {
public:
    /// Throws Damage where size or digest are not as they should be.
    explicit CheckedReader(const std::filesystem::path& file);

    /// Fills `data` from a place in the file, open as `fd`, with zeros behind its end. OpenMP's threads share the blocks: a block that is met for the
    /// first time is read whole and hashed. Throws Damage.
    void read(int fd, std::int64_t offset, std::int64_t bytes, char* data);

private:
    std::filesystem::path file_;
    FileDigest digest_;
    std::vector<char> checked_;  ///< a flag for every block; not bits, for threads set them
};

}  // namespace rf
