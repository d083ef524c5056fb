#include "io/files.hpp"

#include "core/check.hpp"
#include "core/cpu.hpp"

#include <fcntl.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <future>
#include <sstream>

namespace rf {

namespace fs = std::filesystem;

namespace {

std::string hex(XXH128_hash_t hash) {
    std::array<char, 33> text{};
    std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
    return text.data();
}

[[noreturn]] void fail_file(const char* what, const fs::path& path) { fail(what, " ", path.string(), ": ", std::strerror(errno)); }

/// A descriptor that closes itself.
struct Descriptor {
    int fd;
    Descriptor(const fs::path& path, int flags) : fd(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
        if (fd < 0) fail_file("cannot open", path);
    }
    ~Descriptor() { ::close(fd); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
};

void write_all(const Descriptor& out, std::string_view content, const fs::path& path) {
    while (!content.empty()) {
        const ssize_t n = ::write(out.fd, content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_file("cannot write", path);
        content.remove_prefix(static_cast<std::size_t>(n));
    }
}

fs::path digest_path(const fs::path& file) { return file.string() + ".digest"; }

/// Fills `data` from a place in the file, less at its end; returns the bytes read.
std::int64_t read_at(int fd, char* data, std::int64_t bytes, std::int64_t offset, const fs::path& file) {
    std::int64_t have = 0;
    while (have < bytes) {
        const ssize_t n = ::pread(fd, data + have, static_cast<std::size_t>(bytes - have), offset + have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_file("cannot read", file);
        if (n == 0) break;
        have += n;
    }
    return have;
}

std::string to_text(const FileDigest& d) {
    std::ostringstream out;
    out << "roformer-digest 1\nsize " << d.size << "\nblock " << d.block << '\n';
    for (const auto& r : d.ranges) out << "range " << r.begin << ' ' << r.end << ' ' << r.name << '\n';
    for (const auto& b : d.blocks) out << "xxh3 " << b << '\n';
    std::string text = out.str();
    return text + "end " + digest(text.data(), static_cast<std::int64_t>(text.size())) + '\n';
}

/// False when the text is not a whole, unharmed digest.
bool from_text(const std::string& text, FileDigest& d) {
    const std::size_t end = text.rfind("end ");
    if (end == std::string::npos || text.size() != end + 37 || !text.starts_with("roformer-digest 1\n")) return false;
    if (text.substr(end + 4, 32) != digest(text.data(), static_cast<std::int64_t>(end)) || text.back() != '\n') return false;
    std::istringstream in(text.substr(0, end));
    std::string word;
    std::getline(in, word);
    while (in >> word) {
        if (word == "size") in >> d.size;
        else if (word == "block") in >> d.block;
        else if (word == "xxh3") in >> d.blocks.emplace_back();
        else if (word == "range") {
            auto& r = d.ranges.emplace_back();
            in >> r.begin >> r.end;
            in.get();
            std::getline(in, r.name);
        }
    }
    // Whoever wrote it: no size in it is believed before memory is taken by it.
    constexpr std::int64_t largest_block = 1 << 26;
    return d.size >= 0 && d.block >= 1 && d.block <= largest_block && static_cast<std::int64_t>(d.blocks.size()) == (d.size + d.block - 1) / d.block;
}

}  // namespace

std::string digest(const void* data, std::int64_t bytes) { return hex(XXH3_128bits(data, static_cast<std::size_t>(bytes))); }

void sync_path(const fs::path& path) {
    const Descriptor d(path, O_RDONLY);
    if (::fsync(d.fd) != 0) fail_file("cannot flush", path);
}

void rename_durably(const fs::path& from, const fs::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) fail(message("cannot rename ", from.string(), " to ", to.string(), ": ", std::strerror(errno)));
    const fs::path parent = to.parent_path();
    sync_path(parent.empty() ? "." : parent);
}

void write_file(const fs::path& path, std::string_view content) { write_all(Descriptor(path, O_WRONLY | O_CREAT | O_TRUNC), content, path); }

void write_file_atomically(const fs::path& path, std::string_view content) {
    const fs::path partial = path.string() + ".partial";
    {
        const Descriptor out(partial, O_WRONLY | O_CREAT | O_TRUNC);
        write_all(out, content, partial);
        if (::fsync(out.fd) != 0) fail_file("cannot flush", partial);
    }
    rename_durably(partial, path);
}

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in || fs::is_directory(path)) fail("cannot read ", path.string(), ": ", fs::is_directory(path) ? "it is a folder" : std::strerror(errno));
    std::string content;
    std::size_t have = 0;
    do {
        content.resize(std::max<std::size_t>(2 * have, 1 << 16));
        in.read(content.data() + have, static_cast<std::streamsize>(content.size() - have));
        have += static_cast<std::size_t>(in.gcount());
    } while (in);
    content.resize(have);
    return content;
}

void write_digest(const fs::path& file, std::vector<FileDigest::Range> ranges) {
    FileDigest d;
    d.ranges = std::move(ranges);
    {
        const Descriptor in(file, O_RDONLY);
        std::vector<char> data(static_cast<std::size_t>(d.block));
        while (const std::int64_t n = read_at(in.fd, data.data(), d.block, d.size, file)) {
            d.blocks.push_back(digest(data.data(), n));
            d.size += n;
        }
    }
    sync_path(file);
    write_file_atomically(digest_path(file), to_text(d));
}

namespace {

/// The first bytes of a sealed file whose rest is this.
std::string seal_of(const std::string& rest) {
    std::string text = message("roformer-seal 1\nsize ", rest.size(), "\nxxh3 ", digest(rest.data(), static_cast<std::int64_t>(rest.size())), '\n');
    text.resize(seal_bytes, '\0');
    return text;
}

}  // namespace

void seal_file(const fs::path& file) {
    const std::string seal = seal_of(read_file(file).substr(seal_bytes));
    const Descriptor out(file, O_WRONLY);
    write_all(out, seal, file);
    if (::fsync(out.fd) != 0) fail_file("cannot flush", file);
}

bool has_seal(const fs::path& file) {
    constexpr std::string_view hdf5 = "\x89HDF\r\n\x1a\n";
    const Descriptor in(file, O_RDONLY);
    char begin[seal_bytes + hdf5.size()];
    const auto n = static_cast<std::size_t>(read_at(in.fd, begin, sizeof begin, 0, file));
    const std::string_view text(begin, n);
    // Either mark alone may be the damaged one.
    return !text.starts_with(hdf5) && (text.starts_with("roformer-seal") || text.substr(std::min(n, std::size_t{seal_bytes})) == hdf5);
}

namespace {

/// Number of the first block of the share that differs from its digest; none: that of the block behind the last.
std::int64_t find_damaged_block(int fd, const FileDigest& d, BlockShare share, const fs::path& file) {
    const auto count = static_cast<std::int64_t>(d.blocks.size());
    std::vector<char> data(static_cast<std::size_t>(std::min(d.block, d.size)));
    for (std::int64_t index = share.part; index < count; index += share.parts) {
        const std::int64_t begin = index * d.block, expected = std::min(d.block, d.size - begin);
        const std::int64_t n = read_at(fd, data.data(), expected, begin, file);
        if (n != expected || d.blocks[static_cast<std::size_t>(index)] != digest(data.data(), n)) return index;
    }
    return count;
}

/// The same by a few threads: one core takes longer to copy from the page cache than a fast disk to fill it.
std::int64_t find_damaged_block_together(int fd, const FileDigest& d, BlockShare share, const fs::path& file) {
    constexpr std::size_t few = 16, most_threads = 4;
    const std::size_t threads = d.blocks.size() < few ? 1 : std::min(static_cast<std::size_t>(cpu_count()), most_threads);
    std::vector<std::future<std::int64_t>> found;
    for (std::size_t t = 1; t < threads; ++t) {
        const BlockShare part{share.part + share.parts * static_cast<std::int64_t>(t), share.parts * static_cast<std::int64_t>(threads)};
        found.push_back(std::async(std::launch::async, [=, &d, &file] { return find_damaged_block(fd, d, part, file); }));
    }
    std::int64_t first = find_damaged_block(fd, d, {share.part, share.parts * static_cast<std::int64_t>(threads)}, file);
    for (auto& part : found) first = std::min(first, part.get());
    return first;
}

}  // namespace

std::string find_damage(const fs::path& file, BlockShare share, std::int64_t* first_block) {
    const fs::path beside = digest_path(file);
    if (first_block) *first_block = 0;
    if (!fs::exists(file)) return message(file.string(), ": missing");
    if (!fs::exists(beside) && has_seal(file)) {
        if (share.part != 0) return {};
        const std::string bytes = read_file(file), rest = bytes.size() < seal_bytes ? "" : bytes.substr(seal_bytes);
        return bytes.starts_with(seal_of(rest)) ? "" : message(file.string(), ": differs from the digest it carries");
    }
    if (!fs::exists(beside)) return message(file.string(), ": its digest ", beside.filename().string(), " is missing");
    FileDigest d;
    if (!from_text(read_file(beside), d)) return message(beside.string(), ": the digest file itself is damaged");
    const auto size = static_cast<std::int64_t>(fs::file_size(file));
    if (size != d.size) return message(file.string(), ": ", size, " bytes long, expected ", d.size, size < d.size ? " (truncated)" : "");
    if (share.parts == 0) return {};
    const Descriptor in(file, O_RDONLY);
    const std::int64_t index = find_damaged_block_together(in.fd, d, share, file);
    if (index == static_cast<std::int64_t>(d.blocks.size())) return {};
    const std::int64_t begin = index * d.block, end = std::min(begin + d.block, d.size);
    std::string names;
    for (const auto& r : d.ranges)
        if (r.begin < end && begin < r.end) names += (names.empty() ? "" : ", ") + r.name;
    if (first_block) *first_block = index;
    return message(file.string(), ": bytes ", begin, " to ", end - 1, " differ from their digest (holds ", names.empty() ? "HDF5 structure" : names, ")");
}

}  // namespace rf
