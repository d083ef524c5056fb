#include "io/files.hpp"

#include "core/check.hpp"
#include "core/parallel.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>
#ifdef RF_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>  // the instructions of the processor at hand: 25 instead of 12 GB/s with AVX2
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
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

/// The digest of bytes [begin, end) of a file, of what there is of them; read in pieces that stay in a core's own cache until they are hashed.
/// Those of [from, to) are kept in `data`.
std::string digest_of(int fd, std::int64_t begin, std::int64_t end, const fs::path& file, std::int64_t from = 0, std::int64_t to = 0, char* data = nullptr) {
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
    XXH3_128bits_reset(state.get());
    std::array<char, 1 << 18> piece;
    for (std::int64_t at = begin; at < end;) {
        const bool kept = from <= at && at < to;
        const std::int64_t stop = kept ? to : at < from ? std::min(from, end) : end;
        char* into = kept ? data + (at - from) : piece.data();
        const std::int64_t n = read_at(fd, into, std::min<std::int64_t>(piece.size(), stop - at), at, file);
        if (n == 0) break;
        XXH3_128bits_update(state.get(), into, static_cast<std::size_t>(n));
        at += n;
    }
    return hex(XXH3_128bits_digest(state.get()));
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

std::string place_trouble(const std::string& path) {
    if (path.empty()) return "expected the name of a file";
    const fs::path parent = fs::path(path).parent_path();
    const std::string folder = parent.empty() ? "." : parent.string();
    if (!fs::is_directory(folder)) return message("the folder ", folder, " of ", path, fs::exists(folder) ? " is a file" : " does not exist");
    if (::access(folder.c_str(), W_OK) != 0) return message("cannot write in the folder ", folder, " of ", path, " (", std::strerror(errno), ")");
    return fs::is_directory(path) ? path + " is a folder, expected a file" : "";
}

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
        std::vector<char> data(static_cast<std::size_t>(std::min(d.block, static_cast<std::int64_t>(fs::file_size(file)))));
        while (const std::int64_t n = read_at(in.fd, data.data(), static_cast<std::int64_t>(data.size()), d.size, file)) {
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

std::string FileDigest::place_of(const fs::path& file, std::int64_t block_index) const {
    const std::int64_t begin = block_index * block, end = std::min(size, begin + block);
    std::string names;
    for (const Range& r : ranges)
        if (r.begin < end && begin < r.end) names += (names.empty() ? "" : ", ") + r.name;
    return message(file.string(), ": bytes ", begin, " to ", end - 1, " differ from their digest (holds ", names.empty() ? "HDF5 structure" : names, ")");
}

namespace {

/// The digest beside a file that has the size it tells. Throws Damage.
FileDigest read_digest(const fs::path& file) {
    const fs::path beside = digest_path(file);
    if (!fs::exists(file)) throw Damage(message(file.string(), ": missing"));
    if (!fs::exists(beside)) throw Damage(message(file.string(), ": its digest ", beside.filename().string(), " is missing"));
    FileDigest d;
    if (!from_text(read_file(beside), d)) throw Damage(message(beside.string(), ": the digest file itself is damaged"));
    const auto size = static_cast<std::int64_t>(fs::file_size(file));
    if (size != d.size) throw Damage(message(file.string(), ": ", size, " bytes long, expected ", d.size, size < d.size ? " (truncated)" : ""));
    return d;
}

}  // namespace

std::string find_damage(const fs::path& file, BlockShare share, std::int64_t* first_block) {
    if (first_block) *first_block = 0;
    if (fs::exists(file) && !fs::exists(digest_path(file)) && has_seal(file)) {
        if (share.part != 0) return {};
        const std::string bytes = read_file(file), rest = bytes.size() < seal_bytes ? "" : bytes.substr(seal_bytes);
        return bytes.starts_with(seal_of(rest)) ? "" : message(file.string(), ": differs from the digest it carries");
    }
    FileDigest d;
    try {
        d = read_digest(file);
    } catch (const Damage& e) {
        return e.what();
    }
    if (share.parts == 0) return {};
    const auto blocks = static_cast<std::int64_t>(d.blocks.size());
    const std::int64_t first = blocks * share.part / share.parts, mine = blocks * (share.part + 1) / share.parts - first;
    std::int64_t damaged = blocks;  // the first of them
    std::mutex mutex;
    for_each_run(mine, [&](std::int64_t from, std::int64_t to) {
        const Descriptor in(file, O_RDONLY);  // of its own: the system reads ahead of each
        for (std::int64_t index = first + from; index < first + to; ++index) {
            if (digest_of(in.fd, index * d.block, std::min(d.size, (index + 1) * d.block), file) == d.blocks[static_cast<std::size_t>(index)]) continue;
            const std::lock_guard hold(mutex);
            damaged = std::min(damaged, index);
            break;
        }
    });
    if (damaged == blocks) return {};
    if (first_block) *first_block = damaged;
    return d.place_of(file, damaged);
}

CheckedReader::CheckedReader(const fs::path& file) : file_(file), digest_(read_digest(file)), checked_(digest_.blocks.size()) {}

void CheckedReader::read(int fd, std::int64_t offset, std::int64_t bytes, char* data) {
    const std::int64_t end = std::min(offset + bytes, digest_.size), block = digest_.block;
    if (end < offset + bytes) std::memset(data + std::max<std::int64_t>(end - offset, 0), 0, static_cast<std::size_t>(offset + bytes - std::max(end, offset)));
    if (end <= offset) return;
    const std::int64_t first = offset / block;
    for_each_parallel(static_cast<std::size_t>((end - 1) / block + 1 - first), [&](std::size_t i) {
        const std::size_t index = static_cast<std::size_t>(first) + i;
        const std::int64_t begin = static_cast<std::int64_t>(index) * block, behind = std::min(digest_.size, begin + block);
        const std::int64_t from = std::max(begin, offset), to = std::min(behind, end);
        try {
            if (checked_[index]) {
                if (read_at(fd, data + (from - offset), to - from, from, file_) != to - from) throw Damage(message(file_.string(), ": has become shorter"));
                return;
            }
            if (digest_of(fd, begin, behind, file_, from, to, data + (from - offset)) != digest_.blocks[index])
                throw Damage(digest_.place_of(file_, static_cast<std::int64_t>(index)));
        } catch (const Damage&) {
            throw;
        } catch (const Error& e) {
            throw Damage(e.what());  // the disk does not give it back
        }
        checked_[index] = 1;
    });
}

}  // namespace rf
