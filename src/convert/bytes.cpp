#include "convert/bytes.hpp"

#include "core/check.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace rf::convert {

namespace {

constexpr std::int64_t buffered = 1 << 20;

/// Sixteen tables, so that sixteen bytes are taken at a time: table[k][b] is byte b followed by k zero bytes.
struct CrcTables {
    std::array<std::array<std::uint32_t, 256>, 16> table{};
    constexpr explicit CrcTables(std::uint32_t polynomial) {
        for (std::uint32_t b = 0; b < 256; ++b) {
            std::uint32_t r = b;
            for (int bit = 0; bit < 8; ++bit) r = (r >> 1) ^ ((r & 1U) ? polynomial : 0U);
            table[0][b] = r;
        }
        for (std::size_t k = 1; k < 16; ++k)
            for (std::size_t b = 0; b < 256; ++b) table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xffU];
    }
    std::uint32_t run(const void* data, std::int64_t count, std::uint32_t crc) const {
        const auto* p = static_cast<const unsigned char*>(data);
        std::uint32_t r = ~crc;
        for (; count >= 16; count -= 16, p += 16) {
            std::uint64_t low, high;
            std::memcpy(&low, p, 8);
            std::memcpy(&high, p + 8, 8);
            low ^= r;
            r = 0;
            for (std::size_t k = 0; k < 8; ++k) r ^= table[15 - k][(low >> (8 * k)) & 0xffU] ^ table[7 - k][(high >> (8 * k)) & 0xffU];
        }
        for (; count > 0; --count, ++p) r = (r >> 8) ^ table[0][(r ^ *p) & 0xffU];
        return ~r;
    }
};
constexpr CrcTables zip_tables(0xedb88320U);
constexpr CrcTables castagnoli_tables(0x82f63b78U);

#ifdef __x86_64__
/// The processor's own instruction, which knows this polynomial alone: some six times the tables' speed.
[[gnu::target("sse4.2")]] std::uint32_t crc32c_by_instruction(const void* data, std::int64_t count, std::uint32_t crc) {
    const auto* p = static_cast<const unsigned char*>(data);
    std::uint64_t r = static_cast<std::uint32_t>(~crc);
    for (; count >= 8; count -= 8, p += 8) {
        std::uint64_t word;
        std::memcpy(&word, p, 8);
        r = __builtin_ia32_crc32di(r, word);
    }
    auto rest = static_cast<std::uint32_t>(r);
    for (; count > 0; --count, ++p) rest = __builtin_ia32_crc32qi(rest, *p);
    return ~rest;
}
#endif

}  // namespace

Bytes::Bytes(const std::filesystem::path& path) : name_(path.string()) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_usage(name_, ": cannot be opened (", std::strerror(errno), ")");
    struct stat status;
    const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? status.st_size : 0;
    if (!regular) {
        ::close(descriptor_);
        fail_usage(name_, ": not a file");
    }
}

Bytes::Bytes(std::string_view content, std::string name) : name_(std::move(name)), content_(content), size_(static_cast<std::int64_t>(content.size())) {}

Bytes::~Bytes() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void Bytes::require(std::int64_t offset, std::int64_t count, std::string_view what) const {
    if (offset < 0 || count < 0 || offset > size_ || count > size_ - offset)
        fail_usage(name_, ": ", what, " would lie at bytes ", offset, " + ", count, ", the file has ", size_, " (truncated or damaged)");
}

void Bytes::read(std::int64_t offset, std::int64_t count, void* out, std::string_view what) const {
    require(offset, count, what);
    auto* to = static_cast<char*>(out);
    if (descriptor_ < 0) {
        if (count > 0) std::memcpy(to, content_.data() + offset, static_cast<std::size_t>(count));
        return;
    }
    while (count > 0) {
        const ssize_t n = ::pread(descriptor_, to, static_cast<std::size_t>(count), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(name_, ": cannot be read (", std::strerror(errno), ")");
        if (n == 0) fail(name_, ": grew shorter while it was read");
        to += n, offset += n, count -= n;
    }
}

std::string Bytes::text(std::int64_t offset, std::int64_t count, std::int64_t limit, std::string_view what) const {
    require(offset, count, what);
    if (count > limit) fail_usage(name_, ": ", what, " of ", count, " bytes (expected at most ", limit, ")");
    std::string out(static_cast<std::size_t>(count), '\0');
    read(offset, count, out.data(), what);
    return out;
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("cannot create ", path_.string(), " (", std::strerror(errno), ")");
}

OutputFile::~OutputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::put(const char* data, std::int64_t count, std::int64_t offset) const {
    while (count > 0) {
        const ssize_t n = ::pwrite(descriptor_, data, static_cast<std::size_t>(count), offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("cannot write ", path_.string(), " (", std::strerror(errno), ")");
        data += n, offset += n, count -= n;
    }
}

void OutputFile::flush() {
    put(buffer_.data(), static_cast<std::int64_t>(buffer_.size()), position_ - static_cast<std::int64_t>(buffer_.size()));
    buffer_.clear();
}

void OutputFile::write(const void* data, std::int64_t count) {
    const auto* from = static_cast<const char*>(data);
    if (static_cast<std::int64_t>(buffer_.size()) + count > buffered) flush();
    if (count > buffered) put(from, count, position_);
    else buffer_.append(from, static_cast<std::size_t>(count));
    position_ += count;
    // The disk begins while the next tensors are made and while they are read back; a hint, so its result is of no interest.
    if (constexpr std::int64_t ahead = 8 << 20; position_ - started_ >= ahead) {
        const std::int64_t written = position_ - static_cast<std::int64_t>(buffer_.size());
        ::sync_file_range(descriptor_, started_, written - started_, SYNC_FILE_RANGE_WRITE);
        started_ = written;
    }
}

void OutputFile::zeros(std::int64_t count) {
    RF_REQUIRE(count >= 0 && count <= buffered, "padding of ", count, " bytes");
    write(std::string(static_cast<std::size_t>(count), '\0'));
}

void OutputFile::patch(std::int64_t offset, std::string_view text) {
    RF_REQUIRE(offset >= 0 && offset + static_cast<std::int64_t>(text.size()) <= position_, "patch outside of what was written");
    flush();
    put(text.data(), static_cast<std::int64_t>(text.size()), offset);
}

void OutputFile::finish() {
    flush();
    const int closed = ::close(descriptor_);
    descriptor_ = -1;
    if (closed != 0) fail("cannot close ", path_.string(), " (", std::strerror(errno), ")");
}

std::uint32_t crc32(const void* data, std::int64_t count, std::uint32_t crc) { return zip_tables.run(data, count, crc); }
std::uint32_t crc32c(const void* data, std::int64_t count, std::uint32_t crc) {
#ifdef __x86_64__
    static const bool has_instruction = __builtin_cpu_supports("sse4.2");
    if (has_instruction) return crc32c_by_instruction(data, count, crc);
#endif
    return castagnoli_tables.run(data, count, crc);
}

}  // namespace rf::convert
