#pragma once
/// Files that are whole or absent, and digests of what they hold.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace rf {

/// XXH3, 128 bits, as 32 hexadecimal digits (xxhash.com; the library libxxhash).
std::string digest(const void* data, std::int64_t bytes);

/// Flushes a file or folder to the disk; throws naming it.
void sync_path(const std::filesystem::path& path);
/// Writes path.partial, flushes it, renames it to path and flushes the folder: a reader sees all or nothing.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);
/// Renames and flushes both folders.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
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
};
/// Reads the whole file, writes `<file>.digest` (itself protected by a digest), flushes both.
void write_digest(const std::filesystem::path& file, std::vector<FileDigest::Range> ranges);
/// Empty when the file agrees with its digest; otherwise what is wrong: file, tensor, byte range.
std::string find_damage(const std::filesystem::path& file);

}  // namespace rf
